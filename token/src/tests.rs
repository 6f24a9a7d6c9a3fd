//! What is taken, and everything that is not.

use crate::key;
use crate::{Grant, KeyError, Refusal, Signer, TOKEN_BYTES_MAX, Verifier};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coset::cbor::value::Value;
use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable};
use coset::{CoseMac0Builder, iana};
use proptest::prelude::*;
use std::sync::OnceLock;

const NOW: u64 = 1_800_000_000;
const PATH: &str = "/t/film/00112233445566778899aabbccddeeff/v1/0.m4s";

fn signer() -> &'static Signer {
    static SIGNER: OnceLock<Signer> = OnceLock::new();
    SIGNER.get_or_init(|| Signer::generate().unwrap())
}

fn verifier() -> Verifier {
    Verifier::new(&[signer().public()]).unwrap()
}

fn grant() -> Grant {
    Grant { play: [7; 16], title: "film".parse().unwrap(), not_before: NOW, expires: NOW + 21_600 }
}

fn check(token: &str) -> Result<(), Refusal> {
    verifier().verify(token, PATH, "GET", NOW).map(drop)
}

fn claims() -> Vec<(Value, Value)> {
    Value::from_slice(&crate::claims::encode(&grant())).unwrap().into_map().unwrap()
}

fn minted(claims: Vec<(Value, Value)>) -> String {
    signer().mint_payload(Value::Map(claims).to_vec().unwrap())
}

fn sign1() -> CoseSign1 {
    let bytes = URL_SAFE_NO_PAD.decode(signer().mint(&grant())).unwrap();
    CoseSign1::from_tagged_slice(&bytes).unwrap()
}

fn spelled(signed: CoseSign1) -> String {
    URL_SAFE_NO_PAD.encode(signed.to_tagged_vec().unwrap())
}

#[test]
fn a_minted_token_is_taken() {
    let token = signer().mint(&grant());
    assert!(token.len() < 400, "{} characters", token.len());
    let claims = verifier().verify(&token, PATH, "GET", NOW).unwrap();
    assert_eq!((claims.play, claims.expires), ([7; 16], NOW + 21_600));
    assert_eq!(claims.title(), Some("film".parse().unwrap()));
    for method in ["HEAD", "OPTIONS"] {
        assert!(verifier().verify(&token, PATH, method, NOW).is_ok());
    }
    assert_eq!(verifier().verify_play(&token, NOW).unwrap(), claims);
}

#[test]
fn it_is_taken_inside_a_cwt_tag() {
    let bytes = URL_SAFE_NO_PAD.decode(signer().mint(&grant())).unwrap();
    let tagged = Value::Tag(61, Box::new(Value::from_slice(&bytes).unwrap()));
    assert_eq!(check(&URL_SAFE_NO_PAD.encode(tagged.clone().to_vec().unwrap())), Ok(()));
    let twice = Value::Tag(61, Box::new(tagged));
    let twice = URL_SAFE_NO_PAD.encode(twice.to_vec().unwrap());
    assert!(matches!(check(&twice), Err(Refusal::Malformed(_))));
}

#[test]
fn time_path_and_method_bind() {
    let token = signer().mint(&grant());
    let at = |now| verifier().verify(&token, PATH, "GET", now).map(drop);
    assert_eq!(at(NOW - 60), Ok(()));
    assert_eq!(at(NOW - 61), Err(Refusal::NotYet));
    assert_eq!(at(NOW + 21_599), Ok(()));
    assert_eq!(at(NOW + 21_600), Err(Refusal::Expired));
    assert_eq!(at(u64::MAX), Err(Refusal::Expired));
    for path in ["/t/film2/x", "/t/fil", "/t/film", "/T/film/x", "", "/t/other/../film/x"] {
        let verdict = verifier().verify(&token, path, "GET", NOW);
        assert_eq!(verdict, Err(Refusal::WrongPath), "{path:?} was taken");
    }
    assert_eq!(verifier().verify(&token, PATH, "POST", NOW), Err(Refusal::Method));
    assert_eq!(verifier().verify(&token, PATH, "get", NOW), Err(Refusal::Method));
}

#[test]
fn only_known_keys_count() {
    let other = Signer::generate().unwrap();
    assert_eq!(check(&other.mint(&grant())), Err(Refusal::UnknownKey));
    assert_eq!(Verifier::new(&[]).unwrap().verify_play(&sign(), NOW), Err(Refusal::UnknownKey));
    let both = Verifier::new(&[signer().public(), other.public()]).unwrap();
    assert!(both.verify(&other.mint(&grant()), PATH, "GET", NOW).is_ok());
}

fn sign() -> String {
    signer().mint(&grant())
}

#[test]
fn a_key_survives_pkcs8() {
    let again = Signer::from_pkcs8(&signer().pkcs8()).unwrap();
    assert_eq!(again.public(), signer().public());
    assert_eq!(check(&again.mint(&grant())), Ok(()));
    assert_eq!(Signer::from_pkcs8(b"rubbish").err(), Some(KeyError::BadPrivateKey));
    assert!(!format!("{:?}", again).contains(&hex::encode(again.pkcs8())));
}

#[test]
fn a_bad_public_key_is_named() {
    let good = signer().public();
    for point in ["", "04", &"0".repeat(130), &format!("05{}", &good.point[2..])] {
        let mut key = good.clone();
        key.point = point.to_owned();
        let error = Verifier::new(&[key]).unwrap_err();
        assert!(error.to_string().contains(&good.kid), "{error}");
    }
    let renamed = model::fleet::PublicKey { kid: "00".repeat(8), ..good };
    assert!(Verifier::new(&[renamed]).is_err());
}

#[test]
fn an_unknown_claim_refuses() {
    for number in [2, 8, 308, 309, 311, 314, 320, -1] {
        let mut odd = claims();
        odd.push((Value::Integer(number.into()), Value::Integer(1.into())));
        assert_eq!(check(&minted(odd)), Err(Refusal::UnknownClaim), "claim {number} was taken");
    }
    let mut named = claims();
    named.push((Value::Text("x".into()), Value::Bool(true)));
    assert_eq!(check(&minted(named)), Err(Refusal::UnknownClaim));
    let mut version = claims();
    version[5].1 = Value::Integer(2.into());
    assert_eq!(check(&minted(version)), Err(Refusal::UnknownClaim));
}

#[test]
fn an_unknown_restriction_of_the_url_refuses() {
    let host = (Value::Integer(1.into()), Value::Map(vec![]));
    let mut odd = claims();
    odd[6].1.as_map_mut().unwrap().push(host);
    assert_eq!(check(&minted(odd)), Err(Refusal::UnknownClaim));
    let mut odd = claims();
    odd[6].1 = Value::Map(vec![]);
    assert_eq!(check(&minted(odd)), Err(Refusal::UnknownClaim));
}

#[test]
fn a_missing_double_or_mistyped_claim_refuses() {
    for n in 0..claims().len() {
        let mut odd = claims();
        odd.remove(n);
        assert!(matches!(check(&minted(odd)), Err(Refusal::Malformed(_))), "{n} is missing");
        let mut odd = claims();
        odd.push(odd[n].clone());
        assert!(matches!(check(&minted(odd)), Err(Refusal::Malformed(_))), "{n} is double");
        let mut odd = claims();
        odd[n].1 = Value::Bool(true);
        assert!(check(&minted(odd)).is_err(), "{n} is mistyped");
    }
    let mut negative = claims();
    negative[1].1 = Value::Integer((-1).into());
    assert!(matches!(check(&minted(negative)), Err(Refusal::Malformed(_))));
}

#[test]
fn a_longer_encoding_of_the_same_claims_refuses() {
    // Map of 8 entries: 0xa8 is its only short head; 0xb8 0x08 says the same in two bytes.
    let mut payload = vec![0xb8];
    payload.extend(crate::claims::encode(&grant()));
    payload[1] = 8;
    assert!(matches!(check(&signer().mint_payload(payload)), Err(Refusal::Malformed(_))));
}

#[test]
fn the_second_form_of_a_signature_refuses() {
    let mut signed = sign1();
    let mut signature: [u8; 64] = signed.signature.as_slice().try_into().unwrap();
    key::negate_s(&mut signature);
    signed.signature = signature.to_vec();
    let bytes = signed.tbs_data(&[]);
    let point = hex::decode(signer().public().point).unwrap();
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED,
        point,
    );
    assert!(key.verify(&bytes, &signature).is_ok(), "not the other form at all");
    assert_eq!(check(&spelled(signed)), Err(Refusal::BadSignature));
}

#[test]
fn another_algorithm_or_header_refuses() {
    let headers = [
        HeaderBuilder::new().algorithm(iana::Algorithm::HMAC_256_256),
        HeaderBuilder::new().algorithm(iana::Algorithm::ES384),
        HeaderBuilder::new(),
        HeaderBuilder::new().algorithm(iana::Algorithm::ES256).iv(vec![1]),
        HeaderBuilder::new().algorithm(iana::Algorithm::ES256).text_value("x".into(), 1.into()),
        HeaderBuilder::new()
            .algorithm(iana::Algorithm::ES256)
            .add_critical(iana::HeaderParameter::Alg),
    ];
    for header in headers {
        let kid = hex::decode(signer().public().kid).unwrap();
        let signed = CoseSign1Builder::new()
            .protected(header.key_id(kid).build())
            .payload(crate::claims::encode(&grant()))
            .create_signature(&[], |message| signer().sign(message).to_vec())
            .build();
        let verdict = check(&spelled(signed.clone()));
        let refused = matches!(verdict, Err(Refusal::Malformed(_) | Refusal::UnknownClaim));
        assert!(refused, "{verdict:?}: {:?}", signed.protected.header);
    }
    let mut signed = sign1();
    signed.unprotected.iv = vec![1];
    assert!(matches!(check(&spelled(signed)), Err(Refusal::Malformed(_))));
}

#[test]
fn a_mac_an_unsigned_and_a_cut_token_refuse() {
    let mac = CoseMac0Builder::new()
        .protected(HeaderBuilder::new().algorithm(iana::Algorithm::HMAC_256_256).build())
        .payload(crate::claims::encode(&grant()))
        .create_tag(&[], |_| vec![0; 32])
        .build();
    let mac = URL_SAFE_NO_PAD.encode(mac.to_tagged_vec().unwrap());
    assert!(matches!(check(&mac), Err(Refusal::Malformed(_))));
    let unsigned = CoseSign1 { signature: vec![], ..sign1() };
    assert_eq!(check(&spelled(unsigned)), Err(Refusal::BadSignature));
    let token = sign();
    for cut in 0..token.len() {
        assert!(check(&token[..cut]).is_err(), "{cut} characters were taken");
    }
    assert!(matches!(check(&"A".repeat(TOKEN_BYTES_MAX + 1)), Err(Refusal::Malformed("too long"))));
    assert!(check(&format!("{token}=")).is_err());
}

#[test]
fn every_bit_of_a_token_counts() {
    let token = sign();
    for n in 0..token.len() * 8 {
        let mut bytes = token.clone().into_bytes();
        bytes[n / 8] ^= 1 << (n % 8);
        if let Ok(text) = String::from_utf8(bytes) {
            assert!(check(&text).is_err(), "bit {n} does not count");
        }
    }
    let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
    for n in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[n / 8] ^= 1 << (n % 8);
        assert!(check(&URL_SAFE_NO_PAD.encode(flipped)).is_err(), "inner bit {n} does not count");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(check(&URL_SAFE_NO_PAD.encode(&bytes)).is_err());
        prop_assert!(check(&String::from_utf8_lossy(&bytes)).is_err());
        // Signed, so that the claims' parser sees it too.
        prop_assert!(check(&signer().mint_payload(bytes)).is_err());
    }

    #[test]
    fn a_grant_comes_back(play: [u8; 16], title in "[a-z0-9][a-z0-9-]{0,63}", from: u32, life: u32) {
        let (from, expires) = (u64::from(from), u64::from(from) + u64::from(life) + 1);
        let title: model::TitleId = title.parse().unwrap();
        let path = model::route::title_prefix(&title);
        let token = signer().mint(&Grant { play, title, not_before: from, expires });
        let claims = verifier().verify(&token, &path, "GET", from).unwrap();
        prop_assert_eq!((claims.play, claims.not_before, claims.expires), (play, from, expires));
    }

    #[test]
    fn many_flips_refuse(flips in proptest::collection::vec((0usize..400, 1u8..=255), 1..4)) {
        let token = sign();
        let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for (at, by) in flips {
            let at = at % bytes.len();
            bytes[at] ^= by;
        }
        let spelled = URL_SAFE_NO_PAD.encode(&bytes);
        if spelled != token {
            prop_assert!(check(&spelled).is_err());
        }
    }
}
