//! The address that a refused call was to go to, from the memory that its registers point to: `struct sockaddr`, or the header
//! of a message that points to one.
//!
//! Neighbours: `refusals` reads the memory and puts what is here in the record. Never: decides; trusts a length that it was given.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

/// Where a message's header says that its address is (`msg_name` of `struct msghdr`); none, if it has none.
pub(super) fn of_header(header: &[u8]) -> Option<u64> {
    let (pointer, _) = header.split_first_chunk()?;
    Some(u64::from_ne_bytes(*pointer)).filter(|pointer| *pointer != 0)
}

/// An internet address in words; other families are not told.
pub(super) fn words(address: &[u8]) -> Option<String> {
    const INET: u16 = 2;
    const INET6: u16 = 10;
    let (family, rest) = address.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    match u16::from_ne_bytes(*family) {
        INET => {
            let (octets, _) = rest.split_first_chunk::<4>()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(*octets), port).to_string())
        }
        INET6 => {
            let (_flow, rest) = rest.split_first_chunk::<4>()?;
            let (octets, _) = rest.split_first_chunk::<16>()?;
            Some(SocketAddrV6::new(Ipv6Addr::from(*octets), port, 0, 0).to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{connects, sockets};
    use super::*;
    use crate::plan::seccomp;

    proptest! {
        /// Whatever a cell has in its memory and its registers.
        #[test]
        fn what_is_read_of_a_cell_is_an_address_or_nothing(
            family in prop_oneof![Just([1, 0]), Just([2, 0]), Just([10, 0]), any::<[u8; 2]>()],
            rest in prop::collection::vec(any::<u8>(), 0..140),
            length in prop_oneof![0..160_u64, any::<u64>()],
            number in prop_oneof![0..500_u32, any::<u32>()],
            arguments in any::<[u64; 6]>(),
        ) {
            let bytes = [&family[..], &rest].concat();
            let told = words(&bytes);
            let at = connects::socket_address(&bytes);
            prop_assert_eq!(told.is_some(), at.is_some(), "{:?} {:?}", told, at);
            if let Some(told) = told {
                prop_assert_eq!(told.parse::<std::net::SocketAddr>().unwrap().port(), at.unwrap().port());
            }
            if let Some(path) = sockets::path(&bytes, length) {
                prop_assert!(family == [1, 0] && length > 2 && !path.is_empty() && !path.contains('\0'));
            }
            prop_assert_ne!(of_header(&bytes), Some(0));
            prop_assert!(!seccomp::attempt(number, &arguments).operation.is_empty());
        }
    }

    #[test]
    fn an_address_is_told_as_people_write_it() {
        let port = 443_u16.to_be_bytes();
        let four = [&2_u16.to_ne_bytes()[..], &port, &[169, 254, 169, 254], &[0; 8]].concat();
        assert_eq!(words(&four).as_deref(), Some("169.254.169.254:443"));
        let six =
            [&10_u16.to_ne_bytes()[..], &port, &[0; 4], &Ipv6Addr::LOCALHOST.octets(), &[0; 4]].concat();
        assert_eq!(words(&six).as_deref(), Some("[::1]:443"));
        for (address, length) in [(&four, 8), (&six, 24)] {
            assert!((0..length).all(|length| words(&address[..length]).is_none()));
        }
        assert_eq!(words(&[&1_u16.to_ne_bytes()[..], b"/run/agent.sock"].concat()), None);
    }

    #[test]
    fn a_header_without_an_address_leads_nowhere() {
        assert_eq!(of_header(&[0; 56]), None);
        assert_eq!(of_header(&[1; 7]), None);
        assert_eq!(of_header(&7_u64.to_ne_bytes()), Some(7));
    }
}
