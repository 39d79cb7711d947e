use reqwest::{
    Url,
    header::{HeaderMap, WWW_AUTHENTICATE},
};

/// The longest that is read: they are a few hundred bytes.
const LONGEST: usize = 4096;

/// How a registry wants to know who asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// By a token, which is handed out there.
    Bearer {
        /// Where.
        realm: Url,
        /// What the registry is called there.
        service: Option<String>,
    },
    /// By name and password.
    Basic,
}

impl Challenge {
    /// The best of those that are offered; `None` if none can be met.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let offered: Vec<Self> = texts.filter(|text| text.len() <= LONGEST).flat_map(offered).collect();
        let is_bearer = |challenge: &Self| matches!(challenge, Self::Bearer { .. });
        let bearer = offered.iter().position(is_bearer);
        offered.into_iter().nth(bearer.unwrap_or_default())
    }
}

fn offered(text: &str) -> Vec<Challenge> {
    let challenges = http_auth::parse_challenges(text).unwrap_or_default();
    challenges.iter().filter_map(challenge).collect()
}

fn challenge(offered: &http_auth::ChallengeRef<'_>) -> Option<Challenge> {
    let value = |wanted: &str| {
        let parameter = offered.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        parameter.map(|(_, value)| value.to_unescaped())
    };
    if offered.scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !offered.scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let realm = Url::parse(&value("realm")?).ok()?;
    Some(Challenge::Bearer { realm, service: value("service").filter(|service| !service.is_empty()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn check(offers: &[&str], expected: Option<&Challenge>) {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(offer).unwrap());
        }
        assert_eq!(Challenge::read(&headers).as_ref(), expected, "{offers:?}");
    }

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: Url::parse(realm).unwrap(), service: service.map(str::to_owned) }
    }

    #[test]
    fn challenges_of_registries_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/x:pull""#;
        check(&[hub], Some(&bearer("https://auth.docker.io/token", Some("registry.docker.io"))));
        check(
            &[r#"bearer service="a b", REALM="https://a.example/t?x=1" , error="insufficient_scope""#],
            Some(&bearer("https://a.example/t?x=1", Some("a b"))),
        );
        check(&[r#"Bearer realm="https://a.example/",service="""#], Some(&bearer("https://a.example/", None)));
        check(&[r#"Basic realm="Registry""#], Some(&Challenge::Basic));
        check(&[r#"Basic realm="x", Bearer realm="https://a.example/t""#], Some(&bearer("https://a.example/t", None)));
        check(&["Negotiate", r#"Basic realm="x""#], Some(&Challenge::Basic));
    }

    #[test]
    fn what_is_none_is_not_met() {
        let long = format!(r#"Bearer realm="https://a.example/{}""#, "x".repeat(LONGEST));
        for text in
            ["", "Bearer", r#"Bearer realm="nowhere""#, r#"Bearer realm="https://a"#, "Digest realm=\"x\"", &long]
        {
            check(&[text], None);
        }
        check(&[], None);
    }
}
