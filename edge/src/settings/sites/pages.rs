//! Which pages on other hosts may read what a proxy site answers.

use crate::cors::Cors;
use crate::settings::Settings;
use crate::settings::values::once;
use http::HeaderValue;
use service::config::ConfigError;
use url::Url;

/// Origins in one list, which each request with one is held against.
const ORIGINS_MAX: usize = 64;
/// What stands for every page, and on a command line for an empty list.
const ALL: &str = "*";
const NONE: &str = "none";

/// As given, by `key`.
///
/// # Errors
/// Names the value that no browser would name its page's origin by.
pub(super) fn cors(key: &str, given: Option<&[String]>) -> Result<Option<Cors>, ConfigError> {
    let Some(given) = given else { return Ok(None) };
    match given {
        [] => return Ok(Some(Cors::Unsaid)),
        [one] if one == NONE => return Ok(Some(Cors::Unsaid)),
        [one] if one == ALL => return Ok(Some(Cors::All)),
        many if many.len() > ORIGINS_MAX => {
            let expected = format!("at most {ORIGINS_MAX}");
            return Err(ConfigError::value(key, format_args!("{} origins", many.len()), expected));
        }
        _ => {}
    }
    once(key, given, String::clone)?;
    let origins = given.iter().map(|given| origin(key, given)).collect::<Result<_, _>>()?;
    Ok(Some(Cors::Of(origins)))
}

/// What is given beside the sites is for that of `--origin` alone.
///
/// # Errors
/// As [`cors`]; or there is no such site.
pub(in crate::settings) fn check_cors(settings: &Settings) -> Result<(), ConfigError> {
    let Some(given) = &settings.cors else { return Ok(()) };
    cors("edge.cors", Some(given))?;
    if settings.origin.is_empty() || settings.control_plane.is_some() {
        let expected = "edge.origin beside it and no edge.control-plane: a site in the file has a \
                        key cors of its own, and titles may be read by all pages";
        return Err(ConfigError::value("edge.cors", given.join(","), expected));
    }
    Ok(())
}

/// An origin as browsers write it (RFC 6454 section 6.2): they are compared byte for byte.
fn origin(key: &str, given: &str) -> Result<HeaderValue, ConfigError> {
    let bad = |expected: &str| ConfigError::value(key, given, expected);
    let expected = "* or none alone, or origins in full as https://player.example, each a scheme, a \
                    host and a port unless that is the scheme's own";
    let url = Url::parse(given).ok().filter(|url| url.has_host() && !given.contains('*'));
    let url = url.ok_or_else(|| bad(expected))?;
    let written = serialized(&url);
    if written != given {
        return Err(bad(&format!("{written:?}, as browsers name it")));
    }
    HeaderValue::try_from(written).map_err(|_| bad(expected))
}

fn serialized(url: &Url) -> String {
    let origin = url.origin();
    if origin.is_tuple() {
        return origin.ascii_serialization();
    }
    // Apps have schemes of their own.
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}", url.scheme())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_taken_as_browsers_write_them() {
        let checked = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(ToString::to_string).collect();
            cors("cors", Some(&given)).map_err(|error| error.to_string())
        };
        assert_eq!(checked(&[]), Ok(Some(Cors::Unsaid)));
        assert_eq!(checked(&["none"]), Ok(Some(Cors::Unsaid)));
        assert_eq!(checked(&["*"]), Ok(Some(Cors::All)));
        assert_eq!(cors("cors", None).unwrap(), None);
        for origin in [
            "https://player.example",
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:81",
            "https://xn--bcher-kva.example",
            "capacitor://localhost",
            "app://player:8",
        ] {
            let value = HeaderValue::from_str(origin).unwrap();
            assert_eq!(checked(&[origin]), Ok(Some(Cors::Of(vec![value]))), "{origin}");
        }
        for origin in ["https://bücher.example", "https://a.example/", "file:///a", "none,*", ""] {
            assert!(checked(&[origin]).is_err(), "{origin}");
        }
        let many: Vec<String> = (0..=ORIGINS_MAX).map(|n| format!("https://{n}.example")).collect();
        let told = cors("cors", Some(&many)).unwrap_err().to_string();
        assert!(told.contains("65 origins"), "{told}");
        assert!(cors("cors", Some(&many[1..])).is_ok());
    }
}
