//! The resolver of one cell: answers for names that a door may lead to, with addresses of the cell's own loopback.
//!
//! Neighbours: `dns` reads and writes messages, `keep` knows which address stands for which name. Never: asks anybody else, so
//! that a question carries nothing out of the cell.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::PoisonError;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::dns::{self, Answer, Question, kind};
use super::keep::Cell;
use super::refused;
use crate::outcome::Violation;
use crate::plan::doors::{GIVEN_OUT, GIVEN_OUT_SIX};
use crate::policy::network::{Host, allow_line, is_name};

/// Names of one cell that get an address beside those of the policy.
const MOST_NAMES: usize = 4096;
/// Questions over one connection, and how long it may be idle.
const QUESTIONS: usize = 256;
const IDLE: Duration = Duration::from_secs(10);

/// Names that were asked for, and the addresses that stand for them.
#[derive(Debug, Default)]
pub(super) struct Names {
    in_order: Vec<String>,
    places: HashMap<String, u32>,
}

impl Names {
    /// The name behind an address.
    pub(super) fn at(&self, address: IpAddr) -> Option<&str> {
        let place = match address {
            IpAddr::V4(four) => usize::try_from(four.to_bits().checked_sub(GIVEN_OUT + 1)?).ok()?,
            IpAddr::V6(six) => usize::try_from(six.to_bits().checked_sub(GIVEN_OUT_SIX + 1)?).ok()?,
        };
        self.in_order.get(place).map(String::as_str)
    }

    /// The addresses of a name, of IPv6 too if there are such; none when there are too many names.
    fn addresses(&mut self, name: &str, six: bool) -> Vec<IpAddr> {
        let place = match self.places.get(name) {
            Some(known) => *known,
            None if self.in_order.len() >= MOST_NAMES => return Vec::new(),
            None => {
                self.in_order.push(name.to_owned());
                let place = u32::try_from(self.in_order.len()).unwrap_or(u32::MAX);
                self.places.insert(name.to_owned(), place);
                place
            }
        };
        let four = Ipv4Addr::from_bits(GIVEN_OUT + place).into();
        let six = six.then(|| Ipv6Addr::from_bits(GIVEN_OUT_SIX + u128::from(place)).into());
        [four].into_iter().chain(six).collect()
    }
}

pub(super) async fn answer_udp(cell: &Cell, socket: &UdpSocket) -> io::Result<()> {
    let mut message = [0; dns::MOST + 1];
    loop {
        let (count, from) = match socket.recv_from(&mut message).await {
            Ok(received) => received,
            // Who asked before does not listen any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        let Some(question) = message.get(..count).filter(|_| count <= dns::MOST).and_then(dns::question)
        else {
            continue;
        };
        let answer = answer(cell, &question).await;
        let _asked_again = socket.send_to(&answer, from).await.is_err();
    }
}

pub(super) async fn answer_tcp(cell: &Cell, mut stream: TcpStream) -> io::Result<()> {
    for _ in 0..QUESTIONS {
        let asked = async {
            let length = usize::from(stream.read_u16().await?);
            let mut message = vec![0; length.min(dns::MOST)];
            stream.read_exact(&mut message).await?;
            Ok::<_, io::Error>((length <= dns::MOST).then(|| dns::question(&message)).flatten())
        };
        let Some(question) = timeout(IDLE, asked).await?? else { return Ok(()) };
        let answer = answer(cell, &question).await;
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await?;
    }
    Ok(())
}

async fn answer(cell: &Cell, question: &Question) -> Vec<u8> {
    let name = question.name.as_str();
    if cell.doors.network.knows_name(name) && is_name(name) {
        let host = Host::Name(name.to_owned());
        let known = cell.doors.places.iter().find(|place| place.host == host);
        let addresses = match known {
            Some(place) => place.addresses.clone(),
            None => {
                let mut names = cell.names.lock().unwrap_or_else(PoisonError::into_inner);
                names.addresses(name, cell.doors.gives_out_six())
            }
        };
        return question.answer(match addresses.is_empty() {
            true => Answer::Failed,
            false => Answer::Addresses(&addresses),
        });
    }
    // Who asks for the name of an address wants to reach nothing by it.
    if question.kind != kind::PTR {
        let rule = "the cell's resolver: `[network]` allows no such name".to_owned();
        let allow = is_name(name).then(|| allow_line(&format!("{name}:443")));
        cell.refuse(Violation { allow, ..refused("resolve", name.to_owned(), rule) }).await;
    }
    question.answer(Answer::NoName)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_address_and_there_is_an_end_to_them() {
        let mut names = Names::default();
        let addresses =
            |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let first = addresses(&["127.80.0.1", "fd74:5ce1:1d00:1::1"]);
        assert_eq!(names.addresses("a.example", true), first);
        assert_eq!(names.addresses("b.example", false), addresses(&["127.80.0.2"]));
        assert_eq!(names.addresses("a.example", true), first);
        assert_eq!(names.addresses("a.example", false), first[..1]);
        for address in first.clone() {
            assert_eq!(names.at(address), Some("a.example"));
        }
        for address in addresses(&[
            "127.80.0.0",
            "127.80.0.3",
            "127.0.0.1",
            "10.0.0.1",
            "::1",
            "fd74:5ce1:1d00:1::",
            "fd74:5ce1:1d00:1::3",
            "fd74:5ce1:1d00:1:1::1",
            "fd74:5ce1:1d00::1",
        ]) {
            assert_eq!(names.at(address), None, "{address}");
        }
        for number in 2..MOST_NAMES {
            assert!(!names.addresses(&format!("{number}.example"), true).is_empty());
        }
        assert!(names.addresses("more.example", true).is_empty());
        assert_eq!(names.addresses("a.example", true), first);
    }
}
