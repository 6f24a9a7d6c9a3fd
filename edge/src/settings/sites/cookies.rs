//! `cookies`, of a site or of a rule: `"keep"` or `"drop"`.

use caching::Cookies;
use serde::Deserializer;
use serde::de::{Error, Unexpected, Visitor};
use std::fmt;

struct Word;

impl Visitor<'_> for Word {
    type Value = Cookies;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"keep\" or \"drop\"")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Cookies, E> {
        match word {
            "keep" => Ok(Cookies::Keep),
            "drop" => Ok(Cookies::Drop),
            other => Err(E::invalid_value(Unexpected::Str(other), &self)),
        }
    }
}

/// Reads one that is given.
pub(super) fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cookies>, D::Error> {
    from.deserialize_any(Word).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::{SiteConfig, SiteSettings};
    use caching::Cookies;
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn what_is_neither_keep_nor_drop_is_named() {
        let error = |line: &str| {
            let text = format!("origins = [\"http://127.0.0.1:1\"]\n{line}\n");
            let parsed = service::config::parse::<SiteSettings>(Path::new("nearcast.toml"), &text);
            parsed.map(|_| ()).unwrap_err().to_string()
        };
        let lines = [
            "cookies = \"none\"",
            "cookies = false",
            "cookies = { drop = [\"_ga\"] }",
            "ttl = [{ path = \"*\", cookies = \"Drop\" }]",
        ];
        insta::assert_snapshot!(lines.map(error).join("\n"));
    }

    /// The first rule that matches counts, whatever the site says.
    #[test]
    fn a_rule_goes_before_the_site_and_may_be_for_cookies_alone() {
        let rule = json!({ "path": "/a", "cookies": "keep" });
        let site = json!({ "origins": ["http://127.0.0.1:1"], "cookies": "drop", "ttl": [rule] });
        let settings = serde_json::from_value(site).unwrap();
        let config = SiteConfig::check("a.example", &settings).unwrap();
        let told = (config.caching.cookies, config.rules[0].caching.cookies);
        assert_eq!(told, (Cookies::Drop, Cookies::Keep));
    }
}
