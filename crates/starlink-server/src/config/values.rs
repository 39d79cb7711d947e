//! Reads the values of settings: from text to types that cannot be wrong.

use std::net::SocketAddr;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Its name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let known = [Self::Text, Self::Json].into_iter().find(|format| format.as_str() == text);
        known.ok_or_else(|| format!("must be text or json, not {text:?}"))
    }
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().ok().ok_or_else(|| {
        format!(
            "must be an IP address and a port, such as 127.0.0.1:8000, 0.0.0.0:8000 or [::1]:8000, not {text:?}; \
             host names are not looked up"
        )
    })
}

pub(super) fn path(text: &str) -> Result<std::path::PathBuf, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.into()) }
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    text.parse().ok().ok_or_else(|| format!("must be true or false, not {text:?}"))
}

pub(super) fn retention_days(text: &str) -> Result<u32, String> {
    number(text, 0, 36_500)
}

pub(super) fn sample_days(text: &str) -> Result<u32, String> {
    number(text, 1, 3650)
}

pub(super) fn patience_seconds(text: &str) -> Result<u32, String> {
    number(text, 1, 31_536_000)
}

pub(super) fn grace_seconds(text: &str) -> Result<u32, String> {
    number(text, 1, 86_400)
}

pub(super) fn interval_seconds(text: &str) -> Result<u32, String> {
    number(text, 1, 300)
}

pub(super) fn absolute(text: &str) -> Result<std::path::PathBuf, String> {
    let path = path(text)?;
    if path.is_absolute() { Ok(path) } else { Err(format!("must be an absolute path, not {text:?}")) }
}

pub(super) fn registry(text: &str) -> Result<String, String> {
    let is_host = domain::containers::ImageName::parse(&format!("{text}/x")).is_ok_and(|name| name.registry() == text);
    if is_host { Ok(text.to_owned()) } else { Err(format!("must be HOST or HOST:PORT, not {text:?}")) }
}

pub(super) fn user(text: &str) -> Result<String, String> {
    let good = !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if good { Ok(text.to_owned()) } else { Err(format!("must be the name of a user of this machine, not {text:?}")) }
}

pub(super) fn workers(text: &str) -> Result<usize, String> {
    let count = number(text, 1, 256)?;
    usize::try_from(count).map_err(|error| error.to_string())
}

fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("must be a whole number from {least} to {most}, not {text:?}"))
}

/// A bare word that is no level would be taken for the name of a module, and silence all the rest: it is refused.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    let explain = |word: &str| {
        format!(
            "{word:?} is not a level: use error, warn, info, debug, trace or off, and MODULE=LEVEL for a module, \
             such as info,domain=debug"
        )
    };
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if let Some(word) = parts.iter().find(|part| !part.contains(['=', '[']) && !is_level(part)) {
        return Err(explain(word));
    }
    let filter = parts.join(",");
    EnvFilter::try_new(&filter).ok().map(|_| filter).ok_or_else(|| explain(text))
}

fn is_level(word: &str) -> bool {
    !word.is_empty() && word.parse::<LevelFilter>().is_ok()
}

/// An origin as browsers send it: lower case, no default port.
pub(super) fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Err("* would let every web page call the API on behalf of whoever opens it: name the origins that \
                    may, such as https://console.example.org"
            .to_owned());
    }
    let wrong =
        || format!("must be an origin such as https://console.example.org or http://localhost:3000, not {text:?}");
    let lower = text.to_ascii_lowercase();
    let (scheme, authority) = lower.split_once("://").ok_or_else(wrong)?;
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(wrong()),
    };
    if authority.contains(['/', '?', '#']) {
        return Err(format!("{}; an origin has no path: remove what comes after the host", wrong()));
    }
    let (host, port) = split_port(authority).ok_or_else(wrong)?;
    if !is_host(host) {
        return Err(wrong());
    }
    Ok(match port {
        Some(port) if port != default_port => format!("{scheme}://{host}:{port}"),
        _ => format!("{scheme}://{host}"),
    })
}

fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_host = authority.rfind(']').map_or(0, |at| at + 1);
    match authority.get(after_host..)?.find(':') {
        None => Some((authority, None)),
        Some(at) => {
            let (host, port) = authority.split_at_checked(after_host + at)?;
            let digits = port.strip_prefix(':')?;
            let number: u16 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
            Some((host, Some(number)))
        }
    }
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let plain =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    host.split('.').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for (text, wanted) in [
            ("https://console.example.org", "https://console.example.org"),
            ("HTTPS://Console.Example.org:443", "https://console.example.org"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
            ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ] {
            assert_eq!(origin(text).as_deref(), Ok(wanted));
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "null",
            "console.example.org",
            "ftp://a.example",
            "https://",
            "https://a.example/",
            "https://a.example/x",
            "https://user@a.example",
            "https://a.example:",
            "https://a.example:+1",
            "https://a.example:99999",
            "https://*.example.org",
            "https://[::1",
            "https://[x]",
            "https://a..b",
            "https://a b",
        ] {
            assert!(origin(text).is_err(), "{text:?}");
        }
        assert!(origin("*").unwrap_err().contains("on behalf of whoever opens it"));
        assert!(origin("https://a.example/").unwrap_err().contains("no path"));
    }

    #[test]
    fn a_log_level_that_would_silence_the_log_is_refused() {
        for text in ["info", "off", "WARN", "info,domain=debug", "warn,domain::audit=trace", "info,[request]=debug"] {
            assert_eq!(log_level(text).as_deref(), Ok(text));
        }
        assert_eq!(log_level(" info, domain=debug").as_deref(), Ok("info,domain=debug"));
        for text in ["", "verbose", "info,domain", "domain=loud", "info,"] {
            assert!(log_level(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_is_an_ip_address_and_a_port() {
        assert!(listen("[::1]:0").is_ok());
        for text in ["localhost:8000", "127.0.0.1", "8000", ":8000", "127.0.0.1:65536"] {
            assert!(listen(text).is_err(), "{text:?}");
        }
        assert!(listen("localhost:8000").unwrap_err().contains("host names are not looked up"));
    }
}
