//! Why a token was refused: a stable code for programs and metrics, a sentence for people.
//! Neither ever holds a part of the token.

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Not a COSE_Sign1 with the headers and claims that a play token has.
    #[error("the play token is malformed: {0}")]
    Malformed(&'static str),
    /// Signed with a key that is not among the known ones.
    #[error("the play token is signed with an unknown key")]
    UnknownKey,
    /// The signature does not fit, or is the second (high-S) form of one that does.
    #[error("the play token's signature is not valid")]
    BadSignature,
    /// It holds a claim or a critical header that is not known here.
    #[error("the play token holds an unknown claim")]
    UnknownClaim,
    /// Its time is over.
    #[error("the play token has expired")]
    Expired,
    /// Its time has not begun.
    #[error("the play token is not valid yet")]
    NotYet,
    /// It is for another title.
    #[error("the play token is for another title")]
    WrongPath,
    /// It does not allow this method.
    #[error("the play token does not allow this method")]
    Method,
}

impl Refusal {
    /// Stable, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "token-malformed",
            Self::UnknownKey => "token-unknown-key",
            Self::BadSignature => "token-bad-signature",
            Self::UnknownClaim => "token-unknown-claim",
            Self::Expired => "token-expired",
            Self::NotYet => "token-not-yet",
            Self::WrongPath => "token-wrong-path",
            Self::Method => "token-method",
        }
    }
}
