//! Where messages may go. Whoever may name a target must not thereby reach what only this machine can reach, such as the
//! credentials that clouds hand out at link-local addresses. So it is the address that is connected to which is judged,
//! not the name that it was found by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses messages may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those of the internet.
    Public,
    /// Also those of this machine and of private networks, and those without TLS.
    Private,
}

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Public,
    Private,
    /// Nobody is told anything there, whatever is configured.
    Forbidden,
}

/// Says what an address is.
pub(crate) fn place(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(v4) => place_v4(v4),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => place_v4(v4),
            None => place_v6(v6),
        },
    }
}

/// The address of version 4 that one of version 6 stands for: mapped, compatible, translated, or of 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(v4(high, low))
        }
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(v4(high, low)),
        _ => None,
    }
}

fn place_v4(address: Ipv4Addr) -> Place {
    let [a, b, c, _] = address.octets();
    let forbidden = address.is_unspecified()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || a == 0
        || a >= 240
        // Where one cloud has its metadata, in a range that others use for private networks.
        || address == Ipv4Addr::new(100, 100, 100, 200)
        || (a == 192 && b == 0 && c == 0);
    if forbidden {
        return Place::Forbidden;
    }
    let shared = a == 100 && (64..128).contains(&b);
    let benchmarks = a == 198 && (b == 18 || b == 19);
    if address.is_loopback() || address.is_private() || address.is_documentation() || shared || benchmarks {
        return Place::Private;
    }
    Place::Public
}

fn place_v6(address: Ipv6Addr) -> Place {
    let [first, ..] = address.segments();
    let link_local = first & 0xffc0 == 0xfe80 || first & 0xffc0 == 0xfec0;
    // The metadata of a cloud, among addresses that are private.
    let metadata = address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];
    if address.is_unspecified() || address.is_multicast() || link_local || metadata {
        return Place::Forbidden;
    }
    if address.is_loopback() || first & 0xfe00 == 0xfc00 || first == 0x2001 && address.segments()[1] == 0xdb8 {
        return Place::Private;
    }
    Place::Public
}

/// Whether messages may go there.
pub(crate) fn allows(reach: Reach, address: IpAddr) -> bool {
    match (place(address), reach) {
        (Place::Public, _) | (Place::Private, Reach::Private) => true,
        (Place::Private, Reach::Public) | (Place::Forbidden, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_machine_reaches_is_out_of_reach() {
        let check = |text: &str, expected: Place| {
            assert_eq!(place(text.parse().unwrap()), expected, "{text}");
        };
        for text in ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "100.128.0.1"] {
            check(text, Place::Public);
        }
        let private = ["127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1"];
        for text in private.into_iter().chain(["fd00::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:a00:1::"]) {
            check(text, Place::Private);
        }
        let forbidden = ["0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1", "255.255.255.255", "100.100.100.200"];
        for text in forbidden.into_iter().chain(["::", "fe80::1", "ff02::1", "fd00:ec2::254", "::ffff:169.254.169.254"])
        {
            check(text, Place::Forbidden);
        }
        assert!(!allows(Reach::Private, "169.254.169.254".parse().unwrap()));
        assert!(!allows(Reach::Public, "127.0.0.1".parse().unwrap()));
    }
}
