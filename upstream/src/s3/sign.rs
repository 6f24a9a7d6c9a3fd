//! AWS Signature Version 4. Pure.

use aws_lc_rs::{digest, hmac};

/// What is signed.
pub(super) struct Signing<'a> {
    pub(super) method: &'a str,
    /// Encoded once, as it is sent.
    pub(super) path: &'a str,
    /// Encoded, sorted, without the question mark.
    pub(super) query: &'a str,
    /// Sorted by name; lower-case names, trimmed values.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) payload_sha256: &'a str,
    /// `YYYYMMDDTHHMMSSZ`.
    pub(super) at: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) access_key_id: &'a str,
    pub(super) secret_access_key: &'a str,
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

fn sha256(text: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

fn hmac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// The key for one day, region and service.
fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> hmac::Tag {
    let date = hmac(format!("AWS4{secret}").as_bytes(), date);
    let region = hmac(date.as_ref(), region);
    let service = hmac(region.as_ref(), service);
    hmac(service.as_ref(), "aws4_request")
}

/// The value of the `Authorization` field.
pub(super) fn authorization(signing: &Signing<'_>) -> String {
    let names: Vec<&str> = signing.headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let headers: String =
        signing.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let Signing { method, path, query, payload_sha256, at, region, service, .. } = signing;
    let request = format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{payload_sha256}");
    let date = at.get(..8).unwrap_or(at);
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let text = format!("{ALGORITHM}\n{at}\n{scope}\n{}", sha256(&request));
    let key = signing_key(signing.secret_access_key, date, region, service);
    let signature = hex::encode(hmac(key.as_ref(), &text));
    let id = signing.access_key_id;
    format!("{ALGORITHM} Credential={id}/{scope},SignedHeaders={names},Signature={signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = super::super::EMPTY_SHA256;

    fn signature(signing: &Signing<'_>) -> String {
        authorization(signing).rsplit_once('=').unwrap().1.to_owned()
    }

    /// Of the examples in "Authenticating Requests: Using the Authorization Header", Amazon S3
    /// API Reference.
    fn s3<'a>(path: &'a str, query: &'a str, headers: &'a [(&'a str, &'a str)]) -> Signing<'a> {
        Signing {
            method: "GET",
            path,
            query,
            headers,
            payload_sha256: EMPTY,
            at: "20130524T000000Z",
            region: "us-east-1",
            service: "s3",
            access_key_id: "AKIAIOSFODNN7EXAMPLE",
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        }
    }

    const HOST: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");
    const HASH: (&str, &str) = ("x-amz-content-sha256", EMPTY);
    const DATE: (&str, &str) = ("x-amz-date", "20130524T000000Z");

    #[test]
    fn the_published_s3_examples() {
        let headers = [HOST, ("range", "bytes=0-9"), HASH, DATE];
        assert_eq!(
            signature(&s3("/test.txt", "", &headers)),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let headers = [HOST, HASH, DATE];
        assert_eq!(
            signature(&s3("/", "lifecycle=", &headers)),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            signature(&s3("/", "max-keys=2&prefix=J", &headers)),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn the_published_put_example() {
        let payload = sha256("Welcome to Amazon S3.");
        let headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            HOST,
            ("x-amz-content-sha256", payload.as_str()),
            DATE,
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let mut signing = s3("/test%24file.text", "", &headers);
        (signing.method, signing.payload_sha256) = ("PUT", &payload);
        assert_eq!(
            signature(&signing),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
    }

    /// `get-vanilla` of AWS' test suite for Signature Version 4.
    #[test]
    fn the_test_suite_s_vanilla_request() {
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        let signing = Signing {
            at: "20150830T123600Z",
            service: "service",
            access_key_id: "AKIDEXAMPLE",
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            ..s3("/", "", &headers)
        };
        assert_eq!(
            authorization(&signing),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request,\
             SignedHeaders=host;x-amz-date,\
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
    }

    #[test]
    fn the_published_derived_key() {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        assert_eq!(
            hex::encode(signing_key(secret, "20120215", "us-east-1", "iam")),
            "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"
        );
    }
}
