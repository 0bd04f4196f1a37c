//! Tables and properties of the guard.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn verdict(url: &str) -> [bool; 2] {
    [Loopback::Refused, Loopback::Allowed].map(|loopback| check_url(url, loopback).is_ok())
}

#[test]
fn a_public_receiver_is_called_by_https_only() {
    for url in [
        "https://example.com/hook",
        "https://EXAMPLE.com",
        "https://example.com:8443/a?b=c&d",
        "https://example.com./",
        "https://93.184.216.34/hook",
        "https://[2606:2800:220:1::1]/hook",
        "https://[::ffff:93.184.216.34]/",
        "HTTPS://xn--bcher-kva.example/",
        "https://under_score.example/",
        "https://1password.example/",
        "https://example.com/%20?q=http://10.0.0.1/",
    ] {
        assert_eq!(verdict(url), [true, true], "{url}");
        let plain = format!("http{}", &url[5..]);
        assert_eq!(verdict(&plain), [false, false], "{plain}");
    }
}

#[test]
fn a_loopback_receiver_needs_leave_and_no_tls() {
    for host in ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.9.8.7", "[::1]"] {
        for url in [format!("http://{host}:4000/hook"), format!("https://{host}/")] {
            assert_eq!(verdict(&url), [false, true], "{url}");
        }
    }
    assert_eq!(verdict("http://[::ffff:127.0.0.1]/"), [false, true]);
}

#[test]
fn what_no_browser_and_no_resolver_would_agree_on_is_refused() {
    for url in [
        "",
        "hook",
        "/hook",
        "//example.com/hook",
        "example.com/hook",
        "example.com:443",
        "https://",
        "https:///hook",
        "https:example.com",
        "https://:443/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript://example.com/",
        "https://user@example.com/",
        "https://user:pass@example.com/",
        "https://example.com@10.0.0.1/",
        "https://@example.com/",
        "https://example.com/#part",
        "https://example.com#@10.0.0.1/",
        "https://example.com\\@10.0.0.1/",
        "https://exa mple.com/",
        "https://example.com/a b",
        "https://example.com/\u{e9}",
        "https://b\u{fc}cher.example/",
        "https://example.com/\n",
        " https://example.com/",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:/",
        "https://example.com:+443/",
        "https://example..com/",
        "https://.example.com/",
        "https://exa%6dple.com/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://0177.0.0.01/",
        "https://1.2.3.4.5/",
        "https://example.0x1/",
        "https://foo.localhost/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://[]/",
        "https://[1.2.3.4]/",
        "https://*.example.com/",
    ] {
        assert_eq!(verdict(url), [false, false], "{url}");
    }
    let long = format!("https://example.com/{}", "x".repeat(URL_BYTES_MAX));
    assert_eq!(verdict(&long), [false, false]);
    assert_eq!(verdict(&long[..URL_BYTES_MAX]), [true, true]);
    let label = format!("https://{}.com/", "x".repeat(64));
    assert_eq!(verdict(&label), [false, false]);
}

/// First and last address of everything that is not public, and the addresses around it.
#[test]
fn every_special_range_is_refused_from_end_to_end() {
    for (first, last) in [
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("169.254.0.0", "169.254.255.255"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.0.2.0", "192.0.2.255"),
        ("192.88.99.0", "192.88.99.255"),
        ("192.168.0.0", "192.168.255.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("198.51.100.0", "198.51.100.255"),
        ("203.0.113.0", "203.0.113.255"),
        ("224.0.0.0", "255.255.255.255"),
    ] {
        let bits = |text: &str| u32::from(text.parse::<Ipv4Addr>().expect("an address"));
        let allowed = |bits: u32| check_v4(Ipv4Addr::from(bits), Loopback::Allowed).is_ok();
        let (first, last) = (bits(first), bits(last));
        assert!(!allowed(first), "{}", Ipv4Addr::from(first));
        assert!(!allowed(last), "{}", Ipv4Addr::from(last));
        assert!(first == 0 || allowed(first - 1), "before {}", Ipv4Addr::from(first));
        assert!(last == u32::MAX || allowed(last + 1), "after {}", Ipv4Addr::from(last));
    }
}

#[test]
fn addresses_of_ipv6_are_public_or_refused() {
    for (address, expect) in [
        ("::", [false, false]),
        ("::1", [false, true]),
        ("::2", [false, false]),
        ("::ffff:10.0.0.1", [false, false]),
        ("::ffff:169.254.169.254", [false, false]),
        ("::ffff:127.0.0.1", [false, true]),
        ("::ffff:8.8.8.8", [true, true]),
        ("::127.0.0.1", [false, false]),
        ("::10.0.0.1", [false, false]),
        ("::ffff:0:10.0.0.1", [false, false]),
        ("64:ff9b::10.0.0.1", [false, false]),
        ("64:ff9b::127.0.0.1", [false, false]),
        ("64:ff9b::8.8.8.8", [true, true]),
        ("64:ff9b:1::8.8.8.8", [false, false]),
        ("2002:0a00:0001::1", [false, false]),
        ("2002:7f00:0001::1", [false, false]),
        ("2002:0808:0808::1", [true, true]),
        ("2001::1", [false, false]),
        ("2001:db8::1", [false, false]),
        ("3fff::1", [false, false]),
        ("100::1", [false, false]),
        ("fc00::1", [false, false]),
        ("fdff::1", [false, false]),
        ("fe80::1", [false, false]),
        ("fec0::1", [false, false]),
        ("ff02::1", [false, false]),
        ("4000::1", [false, false]),
        ("2606:4700::1111", [true, true]),
        ("2a00:1450:4001::1", [true, true]),
    ] {
        let parsed: IpAddr = address.parse().expect("an address");
        let got = [Loopback::Refused, Loopback::Allowed].map(|it| check_address(parsed, it));
        assert_eq!(got.map(|it| it.is_ok()), expect, "{address}");
    }
}

#[test]
fn a_target_says_where_and_how() {
    for (url, host, port, path, authority) in [
        ("https://Example.com", "example.com", 443, "/", "example.com"),
        ("https://example.com:443/a", "example.com", 443, "/a", "example.com"),
        ("https://example.com.:8443?x=1", "example.com", 8443, "/?x=1", "example.com:8443"),
        ("http://127.0.0.1:80/h", "127.0.0.1", 80, "/h", "127.0.0.1"),
        ("http://[::1]:4000/h?q", "::1", 4000, "/h?q", "[::1]:4000"),
    ] {
        let target = check_url(url, Loopback::Allowed).expect(url);
        let got = (target.host.as_str(), target.port, target.path_and_query.as_str());
        assert_eq!(got, (host, port, path), "{url}");
        assert_eq!(target.authority(), authority, "{url}");
    }
}

proptest! {
    #[test]
    fn never_panics(url in ".*") {
        drop(check_url(&url, Loopback::Allowed));
        drop(check_url(&format!("https://{url}/"), Loopback::Refused));
    }

    /// What std knows as special is refused, whatever else is.
    #[test]
    fn a_special_address_never_passes_however_it_is_written(bits in any::<u32>()) {
        let v4 = Ipv4Addr::from(bits);
        let special = v4.is_private() || v4.is_loopback() || v4.is_link_local()
            || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified()
            || v4.is_multicast();
        let allowed = check_v4(v4, Loopback::Refused).is_ok();
        prop_assert!(!(special && allowed), "{}", v4);
        let [a, b, c, d] = v4.octets();
        for url in [
            format!("https://{v4}/"),
            format!("https://[::ffff:{v4}]/"),
            format!("https://[64:ff9b::{v4}]/"),
            format!("https://[2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1]/"),
        ] {
            prop_assert_eq!(check_url(&url, Loopback::Refused).is_ok(), allowed, "{}", url);
        }
    }

    /// What passed is reached under the same name and passes again.
    #[test]
    fn a_verdict_is_about_what_is_called(
        host in "(localhost|127\\.0\\.0\\.1|\\[::1\\]|[a-z0-9.-]{1,20}|[0-9.x]{1,12})",
        port in proptest::option::of(1..=u16::MAX),
    ) {
        let port = port.map_or(String::new(), |port| format!(":{port}"));
        let Ok(target) = check_url(&format!("https://{host}{port}/p"), Loopback::Allowed) else {
            return Ok(());
        };
        let again = format!("https://{}/p", target.authority());
        prop_assert_eq!(check_url(&again, Loopback::Allowed), Ok(target));
    }

    #[test]
    fn leave_for_loopback_is_leave_for_nothing_else(bits in any::<u128>()) {
        let address = IpAddr::V6(Ipv6Addr::from(bits));
        let verdicts = [Loopback::Refused, Loopback::Allowed];
        let [refused, allowed] = verdicts.map(|it| check_address(address, it).is_ok());
        prop_assert!(refused == allowed || is_loopback(address));
    }
}
