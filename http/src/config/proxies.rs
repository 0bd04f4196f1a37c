//! Which peers are proxies whose word about the client is believed.

use std::{net::IpAddr, str::FromStr};

/// Most networks in a list.
pub(super) const PROXIES_MAX: usize = 256;

/// A network in CIDR form, `10.0.0.0/8` or `fd00::/8`; a lone address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The bits of the address, left in 128; those behind the prefix are zero.
    bits: u128,
    mask: u128,
    family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("want an address or a network: 10.0.0.1, 10.0.0.0/8, fd00::/8")]
pub struct BadNetwork;

impl Network {
    /// Whether the address is in it. An IPv4 address that came over an IPv6 socket is an IPv4
    /// address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, family) = bits(address.to_canonical());
        family == self.family && bits & self.mask == self.bits
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    /// Bits behind the prefix must be zero: `10.0.0.1/8` is more likely a slip than a network.
    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| BadNetwork)?;
        let (bits, family) = bits(address);
        let width = match family {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        let prefix: u32 = match prefix {
            None => width,
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map_err(|_| BadNetwork)?
            }
            Some(_) => return Err(BadNetwork),
        };
        if prefix > width {
            return Err(BadNetwork);
        }
        let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
        if bits & !mask != 0 {
            return Err(BadNetwork);
        }
        Ok(Self { bits, mask, family })
    }
}

fn bits(address: IpAddr) -> (u128, Family) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, Family::V4),
        IpAddr::V6(address) => (address.to_bits(), Family::V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (network, address, expect) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("10.0.0.0/8", "a00::1", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("::/0", "127.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fc00::1", false),
            ("192.168.1.128/25", "192.168.1.200", true),
            ("192.168.1.128/25", "192.168.1.100", false),
        ] {
            let network: Network = network.parse().expect("a network");
            assert_eq!(network.contains(address.parse().expect("an address")), expect, "{address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "x", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "10.0.0.0/+8", "::1/129", "10/8"]
        {
            assert_eq!(text.parse::<Network>(), Err(BadNetwork), "{text}");
        }
    }
}
