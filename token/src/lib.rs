//! Play tokens: Common Access Tokens (CWT in COSE_Sign1, ES256), minted and verified
