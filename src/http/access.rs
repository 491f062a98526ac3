//! Access rules of a front end: the names it answers to, the origins whose pages may write, and
//! the proxies whose word on an address counts.
//!
//! 1. A name that is not ours is refused, so that no foreign name can be pointed at this address.
//! 2. Names and origins are compared as URLs are: case, a final dot and a default port do not count.
//! 3. Only a trusted proxy says on whose behalf it asks; of the addresses that it lists, the last
//!    one that is no trusted proxy counts.

use std::{collections::BTreeSet, net::IpAddr};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use thiserror::Error;

use super::{App, connection::PeerHost, problem::ErrorResponse};
use crate::{api::ProblemType, comm::connection_limit::counted_host};

/// Names in a list of the settings.
const NAMES_MAX: usize = 64;
/// Largest `X-Forwarded-For` that is read, in addresses, from the end.
const HOPS_MAX: usize = 16;

/// Names, origins and proxies of one front end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    hosts: BTreeSet<String>,
    origins: BTreeSet<(&'static str, String, u16)>,
    proxies: Vec<(IpAddr, u8)>,
    /// Whether the public URL is encrypted.
    is_https: bool,
    /// Whether every connection is encrypted, so that a page that came plain is not ours.
    only_https: bool,
}

/// Error of a setting that is no address of the kind wanted. Nothing was started.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0:?} is not {1}")]
pub struct AccessError(String, &'static str);

impl Access {
    /// Returns the rules of a front end that answers to these names and URLs too, behind these
    /// proxies (`ADDRESS` or `ADDRESS/BITS`).
    ///
    /// # Errors
    /// The first value that is not of its form.
    pub fn new(names: &[String], proxies: &[String]) -> Result<Self, AccessError> {
        let mut access = Self::default();
        let too_many = |list: &[String]| AccessError(list[NAMES_MAX].clone(), "one of 64 at most");
        if let Some(list) = [names, proxies].into_iter().find(|list| list.len() > NAMES_MAX) {
            return Err(too_many(list));
        }
        for name in names {
            if name.contains("://") {
                access.add_url(name)?;
            } else {
                let host = host_of(name).filter(|_| authority(name).is_some_and(|a| a.1.is_none()));
                let wrong = || AccessError(name.clone(), "a host's name or a URL");
                access.hosts.insert(host.ok_or_else(wrong)?);
            }
        }
        for text in proxies {
            let wrong = || AccessError(text.clone(), "an address such as 10.0.0.1 or 10.0.0.0/8");
            access.proxies.push(network(text).ok_or_else(wrong)?);
        }
        Ok(access)
    }

    /// Adds the front end's own public URL.
    ///
    /// # Errors
    /// It is not `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub fn with_public(mut self, url: &str) -> Result<Self, AccessError> {
        self.add_url(url)?;
        self.is_https = url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
        Ok(self)
    }

    /// Takes only pages of https for its own: this front end serves no others.
    #[must_use]
    pub const fn only_https(mut self) -> Self {
        self.only_https = true;
        self
    }

    /// Whether browsers reach this front end by https, its own or a proxy's.
    pub(super) const fn is_https(&self) -> bool {
        self.is_https
    }

    /// Whether this is one of the front end's own origins.
    pub(super) fn is_own(&self, url: &str) -> bool {
        origin(url).is_some_and(|(scheme, host, port)| self.origins.contains(&(scheme, host, port)))
    }

    fn add_url(&mut self, url: &str) -> Result<(), AccessError> {
        let bare = url.strip_suffix('/').unwrap_or(url);
        let wrong = || AccessError(url.to_owned(), "http://HOST[:PORT] or https://HOST[:PORT]");
        let (scheme, host, port) = origin(bare).ok_or_else(wrong)?;
        self.hosts.insert(host.clone());
        self.origins.insert((scheme, host, port));
        Ok(())
    }

    /// Whether a proxy at this address may say for whom it asks.
    pub(super) fn trusts(&self, host: &str) -> bool {
        host.parse().is_ok_and(|addr: IpAddr| {
            let addr = addr.to_canonical();
            self.proxies.iter().any(|(net, bits)| covers(*net, *bits, addr))
        })
    }

    fn answers_to(&self, host: &str) -> bool {
        host_of(host).is_some_and(|host| {
            let address = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || address.parse::<IpAddr>().is_ok() || self.hosts.contains(&host)
        })
    }

    /// Whether a request changes nothing or comes from no page but ours.
    fn may_act(&self, request: &Request) -> bool {
        matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
            || self.is_own_page(request.headers())
    }

    /// Whether a browser's unsafe request comes from a page of ours. Programs that are no browsers
    /// send neither header.
    fn is_own_page(&self, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        match text("sec-fetch-site") {
            // The browser compared the whole origins, whatever proxies made of the names.
            Some("same-origin") => return true,
            None | Some("none") => {}
            Some(_) => return false,
        }
        let Some(said) = text("origin") else { return true };
        let Some((scheme, host, port)) = origin(said) else { return false };
        if self.only_https && scheme != "https" {
            return false;
        }
        let of_host = text("host").and_then(authority).is_some_and(|(to, to_port)| {
            // A proxy that ends TLS does not say so; a host's default port is its page's.
            to == host && to_port.unwrap_or_else(|| default_port(scheme)) == port
        });
        of_host || self.origins.contains(&(scheme, host, port))
    }

    /// Returns the address that a request counts for: the peer's, or what a trusted proxy says.
    fn client(&self, peer: &PeerHost, headers: &HeaderMap) -> PeerHost {
        if !self.trusts(&peer.0) {
            return peer.clone();
        }
        let lines = headers.get_all("x-forwarded-for").iter().rev();
        let hops = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')).map(str::trim);
        let client = hops.take(HOPS_MAX).find(|hop| !self.trusts(bare(hop)));
        let known = client.map(bare).filter(|hop| hop.parse::<IpAddr>().is_ok());
        known.map_or_else(|| peer.clone(), |hop| PeerHost(counted_host(hop).into()))
    }
}

/// Lets a request through that names a host of ours and, if it may change something, comes from a
/// page of ours; puts the address beside it that it counts for.
pub(super) async fn check(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let access = app.access();
    let headers = request.headers();
    let mut named = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("?"));
    let target = request.uri().authority().map(axum::http::uri::Authority::as_str);
    let known = named.all(|host| access.answers_to(host))
        && target.is_none_or(|host| access.answers_to(host));
    if !known {
        return ErrorResponse::new(
            ProblemType::UnknownHost,
            "this name is not served here; an operator can add it with --http-names",
        )
        .into_response();
    }
    if !access.may_act(&request) {
        return foreign_origin();
    }
    if let Some(peer) = request.extensions().get::<PeerHost>() {
        let client = access.client(peer, headers);
        request.extensions_mut().insert(client);
    }
    next.run(request).await
}

/// Lets through what no browser's page of another origin sends.
pub(super) async fn same_origin(State(()): State<()>, request: Request, next: Next) -> Response {
    if Access::default().may_act(&request) { next.run(request).await } else { foreign_origin() }
}

fn foreign_origin() -> Response {
    ErrorResponse::new(
        ProblemType::ForeignOrigin,
        "only this origin's own page may write with its cookie",
    )
    .into_response()
}

const fn default_port(scheme: &str) -> u16 {
    if scheme.len() == "https".len() { 443 } else { 80 }
}

/// Reads `scheme://host[:port]`, with the default port filled in.
fn origin(text: &str) -> Option<(&'static str, String, u16)> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = ["http", "https"].into_iter().find(|known| known.eq_ignore_ascii_case(scheme))?;
    let (host, port) = authority(rest)?;
    Some((scheme, host, port.unwrap_or_else(|| default_port(scheme))))
}

fn host_of(text: &str) -> Option<String> {
    authority(text).map(|(host, _)| host)
}

/// Reads `host[:port]`; the host in lower case, without a final dot.
fn authority(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            (host, Some(port.parse().ok().filter(|port| *port != 0 && digits)?))
        }
        _ => (text, None),
    };
    if let Some(inner) = host.strip_prefix('[') {
        let addr: std::net::Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some((format!("[{addr}]"), port));
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(plain)
    };
    (host.len() <= 253 && host.split('.').all(label)).then_some((host, port))
}

/// Removes the brackets and the port that some proxies write.
fn bare(hop: &str) -> &str {
    if let Some(inner) = hop.strip_prefix('[') {
        return inner.split(']').next().unwrap_or_default();
    }
    match hop.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => hop,
    }
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (addr, bits) = text.split_once('/').map_or((text, None), |(addr, bits)| (addr, Some(bits)));
    let addr: IpAddr = addr.parse().ok()?;
    let most = if addr.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), |bits| bits.parse().ok())?;
    (bits <= most).then_some((addr, bits))
}

fn covers(net: IpAddr, bits: u8, addr: IpAddr) -> bool {
    let all = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => (u128::from(addr.to_bits()) << 96, true),
        IpAddr::V6(addr) => (addr.to_bits(), false),
    };
    let ((net, net_v4), (addr, addr_v4)) = (all(net), all(addr));
    net_v4 == addr_v4 && (net ^ addr).leading_zeros() >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn access(public: &str) -> Access {
        Access::default().with_public(public).expect("a URL")
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn foreign_origin_is_recognised() {
        let here = ("host", "127.0.0.1:8080");
        let good: &[&[(&str, &str)]] = &[
            &[here],
            &[here, ("origin", "http://127.0.0.1:8080")],
            &[here, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")],
            &[here, ("sec-fetch-site", "none")],
        ];
        let bad: &[&[(&str, &str)]] = &[
            &[here, ("origin", "http://127.0.0.1:8081")],
            &[here, ("origin", "http://evil.example")],
            &[here, ("origin", "null")],
            &[("origin", "http://127.0.0.1:8080")],
            &[here, ("sec-fetch-site", "same-site")],
            &[here, ("sec-fetch-site", "cross-site")],
            &[here, ("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "cross-site")],
        ];
        let access = access("http://chat.example");
        for pairs in good {
            assert!(access.is_own_page(&headers(pairs)), "{pairs:?}");
        }
        for pairs in bad {
            assert!(!access.is_own_page(&headers(pairs)), "{pairs:?}");
        }
    }

    #[test]
    fn own_page_behind_a_proxy_is_recognised() {
        let access = access("https://Chat.Example");
        let good: &[&[(&str, &str)]] = &[
            // The proxy wrote its own idea of our name.
            &[("host", "10.0.0.9:8080"), ("origin", "https://chat.example")],
            &[("host", "10.0.0.9:8080"), ("origin", "https://chat.example:443")],
            &[("host", "10.0.0.9"), ("origin", "null"), ("sec-fetch-site", "same-origin")],
            &[("host", "lan:80"), ("origin", "http://lan")],
            &[("host", "LAN."), ("origin", "http://lan:80")],
            &[("host", "lan"), ("origin", "https://lan")],
            &[("host", "[0:0::1]:80"), ("origin", "http://[::1]")],
        ];
        for pairs in good {
            assert!(access.is_own_page(&headers(pairs)), "{pairs:?}");
        }
        let bad: &[&[(&str, &str)]] = &[
            &[("host", "10.0.0.9:8080"), ("origin", "http://chat.example")],
            &[("host", "10.0.0.9:8080"), ("origin", "https://chat.example.evil")],
            &[("host", "lan:81"), ("origin", "http://lan")],
            &[("host", "10.0.0.9"), ("origin", "https://chat.example:8443")],
        ];
        for pairs in bad {
            assert!(!access.is_own_page(&headers(pairs)), "{pairs:?}");
        }
    }

    #[test]
    fn page_that_came_plain_is_foreign_to_a_front_end_of_https_alone() {
        let pairs = |origin| headers(&[("host", "lan:8443"), ("origin", origin)]);
        let access = access("https://lan:8443");
        assert!(access.is_own_page(&pairs("http://lan:8443")), "a proxy may have ended TLS");
        let access = access.only_https();
        assert!(!access.is_own_page(&pairs("http://lan:8443")));
        assert!(access.is_own_page(&pairs("https://lan:8443")));
    }

    #[test]
    fn names_are_addresses_localhost_and_those_listed() {
        let access = Access::new(&texts(&["lan", "https://other.example:8443"]), &[])
            .and_then(|access| access.with_public("http://chat.example:8080/"))
            .expect("they are names");
        for good in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "localhost",
            "LocalHost.:9",
            "lan:1",
            "CHAT.example",
            "other.example",
        ] {
            assert!(access.answers_to(good), "{good}");
        }
        for bad in ["evil.example", "chat.example.evil", "", "127.0.0.1.evil", "lan:x", "a@lan"] {
            assert!(!access.answers_to(bad), "{bad}");
        }
    }

    #[test]
    fn malformed_url_name_or_proxy_is_refused() {
        for url in [
            "chat.example",
            "ftp://chat.example",
            "http://",
            "http://:80",
            "http://chat example",
            "http://chat.example:0",
            "http://chat.example:99999",
            "http://chat.example:+80",
            "http://chat.example/path",
            "http://chat.example?q",
            "http://me@chat.example",
            "http://chat..example",
            "http://::1",
        ] {
            assert!(Access::default().with_public(url).is_err(), "{url}");
        }
        for name in ["", "a b", "a:80", "*", "http://"] {
            assert!(Access::new(&texts(&[name]), &[]).is_err(), "{name}");
        }
        for proxy in ["", "lan", "10.0.0.0/33", "10.0.0.0/", "::1/129"] {
            assert!(Access::new(&[], &texts(&[proxy])).is_err(), "{proxy}");
        }
    }

    #[test]
    fn forwarded_address_counts_only_from_a_trusted_proxy() {
        let access = Access::new(&[], &texts(&["10.0.0.0/8", "::1"])).expect("they are networks");
        let client = |peer: &str, lines: &[&'static str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let mut all = HeaderMap::new();
            for (name, value) in lines {
                all.append(name, HeaderValue::from_static(value));
            }
            access.client(&PeerHost(peer.into()), &all).0.to_string()
        };
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.1.2.3", &["203.0.113.9, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("10.1.2.3", &["198.51.100.7, 10.0.0.1", "10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("::1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(client("10.1.2.3", &["[2001:db8:1:2:3::4]:80"]), "2001:db8:1:2::/64");
        for nothing in [&[][..], &["unknown"], &["10.0.0.1"], &["198.51.100.7, evil"]] {
            assert_eq!(client("10.1.2.3", nothing), "10.1.2.3", "{nothing:?}");
        }
    }
}
