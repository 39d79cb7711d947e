use reqwest::Url;
use std::net::IpAddr;

/// Whether tokens may cross a network in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainHttp {
    /// Only to this machine itself.
    Loopback,
    /// Anywhere: whoever started the agent says that the network is safe.
    Anywhere,
}

/// Where the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress(Url);

impl ServerAddress {
    /// Reads an address such as `https://starlink.example.org`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would be right.
    pub fn parse(text: &str, plain: PlainHttp) -> Result<Self, String> {
        let wrong = |why: &str| format!("must be an address such as https://starlink.example.org: {why}");
        let mut url = Url::parse(text.trim()).map_err(|error| wrong(&error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it must have no user name and no password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("it must have neither ? nor #"));
        }
        match url.scheme() {
            "https" => {}
            "http" if plain == PlainHttp::Anywhere || is_loopback(&url) => {}
            "http" => {
                return Err("plain http would show the tokens to whoever is on the way: use https, or give \
                            --insecure-http if the network between is safe"
                    .to_owned());
            }
            _ => return Err(wrong("it must begin with https:// or http://")),
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self(url))
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The address of a call: these parts, one after another, whatever is in them.
    pub(super) fn call(&self, parts: &[&str]) -> Url {
        let mut url = self.0.clone();
        // It fails only for addresses that have no host, which these have.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// The host and port to connect to, as the operating system resolves them.
    pub(super) fn socket(&self) -> (String, u16) {
        let host = self.0.host_str().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (host.to_owned(), self.0.port_or_known_default().unwrap_or_default())
    }
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_without_a_slash_at_its_end() {
        for (text, wanted) in [
            ("https://a.example", "https://a.example"),
            ("https://a.example/", "https://a.example"),
            (" https://A.example:8443/starlink/ ", "https://a.example:8443/starlink"),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://localhost", "http://localhost"),
            ("http://[::1]:8000/", "http://[::1]:8000"),
        ] {
            let address = ServerAddress::parse(text, PlainHttp::Loopback).unwrap();
            assert_eq!(address.to_string(), wanted);
        }
    }

    #[test]
    fn tokens_do_not_cross_a_network_in_the_clear() {
        for text in ["http://a.example", "http://10.0.0.1:8000", "http://localhost.example.org", "http://[::2]"] {
            assert!(ServerAddress::parse(text, PlainHttp::Loopback).unwrap_err().contains("--insecure-http"), "{text}");
            assert!(ServerAddress::parse(text, PlainHttp::Anywhere).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "a.example", "ftp://a.example", "https://", "https://u:p@a.example", "https://a.example/?x=1"]
        {
            assert!(ServerAddress::parse(text, PlainHttp::Anywhere).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_of_a_path_stay_parts() {
        let address = ServerAddress::parse("https://a.example/base/", PlainHttp::Loopback).unwrap();
        let url = address.call(&["agent", "streams", "a/../b?c"]);
        assert_eq!(url.as_str(), "https://a.example/base/agent/streams/a%2F..%2Fb%3Fc");
        assert_eq!(address.socket(), ("a.example".to_owned(), 443));
        let address = ServerAddress::parse("http://[::1]:8000", PlainHttp::Loopback).unwrap();
        assert_eq!(address.call(&["agent", "session"]).as_str(), "http://[::1]:8000/agent/session");
        assert_eq!(address.socket(), ("::1".to_owned(), 8000));
    }
}
