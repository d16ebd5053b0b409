//! Addresses of web servers.

use super::Text;
use core::net::Ipv6Addr;

/// An address that begins with `http://` or `https://`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::config) struct WebUrl {
    /// Over TLS.
    pub(in crate::config) is_secured: bool,
    /// Name or address, without brackets.
    pub(in crate::config) host: String,
    /// Port.
    pub(in crate::config) port: u16,
    /// Path and query.
    pub(in crate::config) path: String,
}

impl Text for WebUrl {
    const EXPECTED: &'static str = "an address such as \"https://hooks.example.net/stickleback\"";
    const PATTERN: Option<&'static str> = Some("^https?://[^\\s@]+$");

    fn from_text(text: &str) -> Option<Self> {
        let uri: hyper::Uri = text.parse().ok()?;
        let is_secured = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        // Names and passwords in addresses end up in lists and logs.
        if authority.as_str().contains('@') {
            return None;
        }
        let host = match authority.host().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().ok()?.to_string(),
            None => Some(authority.host()).filter(|host| super::is_host_name(host))?.to_owned(),
        };
        let port = match authority.port() {
            Some(port) => Some(port.as_u16()).filter(|&port| port != 0)?,
            None if authority.as_str().ends_with(':') => return None,
            None if is_secured => 443,
            None => 80,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(Self { is_secured, host, port, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let url = |text| WebUrl::from_text(text).map(|url| (url.is_secured, url.host, url.port, url.path));
        let found =
            |secured, host: &str, port, path: &str| Some((secured, host.to_owned(), port, path.to_owned()));
        assert_eq!(url("https://hooks.example.net/a?b=c"), found(true, "hooks.example.net", 443, "/a?b=c"));
        assert_eq!(url("http://192.0.2.1:8080"), found(false, "192.0.2.1", 8_080, "/"));
        assert_eq!(url("http://[2001:db8::1]/x"), found(false, "2001:db8::1", 80, "/x"));
        for wrong in [
            "ftp://a/",
            "hooks.example.net",
            "/x",
            "http://",
            "https://a:0/",
            "https://u:p@a/",
            "http://[::/",
        ] {
            assert_eq!(url(wrong), None, "{wrong}");
        }
    }
}
