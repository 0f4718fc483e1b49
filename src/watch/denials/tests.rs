//! Records as they come, and whose they are.

use std::collections::BTreeMap;

use super::*;
use crate::outcome::{Built, Evidence};
use crate::sys::audit::{LANDLOCK_ACCESS, LANDLOCK_DOMAIN};

const INIT: libc::pid_t = 300;

fn hear(domains: &mut Domains, kind: u16, text: &str) {
    let text = format!("audit(1764162000.123:45): {text}");
    let record = audited::parse(kind, text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
    domains.note(record, Instant::now());
}

fn deny(domains: &mut Domains, domain: u64, fields: &str) {
    hear(domains, LANDLOCK_ACCESS, &format!("domain={domain:x} blockers={fields}"));
}

fn allocate(domains: &mut Domains, domain: u64, pid: libc::pid_t) {
    let rest = format!("status=allocated mode=enforcing pid={pid} uid=0 exe=\"/x\" comm=\"x\"");
    hear(domains, LANDLOCK_DOMAIN, &format!("domain={domain:x} {rest}"));
}

fn end(domains: &mut Domains, domain: u64, denials: u64) {
    hear(domains, LANDLOCK_DOMAIN, &format!("domain={domain:x} status=deallocated denials={denials}"));
}

/// A cell whose init has found Landlock on, by the canary alone.
fn begun(domain: u64) -> (Domains, Cell) {
    let mut domains = Domains::default();
    domains.expect(INIT);
    deny(&mut domains, domain, "fs.read_file path=\"/canary\"");
    allocate(&mut domains, domain, INIT);
    (domains, Cell { init: INIT, own: 1, began: Instant::now() })
}

fn found(domains: &Domains, cell: Cell) -> Vec<(String, String, u64)> {
    domains.violations(cell).into_iter().map(|v| (v.operation, v.object, v.count)).collect()
}

fn verdict(domains: &Domains, cell: Cell, floor: Floor) -> (Coverage, Option<String>) {
    let landlock = || Layer::Landlock.name().to_owned();
    let coverage = BTreeMap::from([(landlock(), Coverage::Blind)]);
    let (layers, reasons) = (BTreeMap::new(), BTreeMap::new());
    let mut receipt = Receipt { floor, cell: Built::OnDemand, layers, coverage, reasons };
    domains.confess(cell, &mut receipt);
    (receipt.coverage[&landlock()], receipt.reasons.remove(&landlock()))
}

#[test]
fn a_cell_has_what_its_domain_denied_after_init_and_nothing_else() {
    let (mut domains, cell) = begun(7);
    deny(&mut domains, 8, "fs.read_file path=\"/of/another\"");
    allocate(&mut domains, 8, 301);
    deny(&mut domains, 9, "fs.read_file path=\"/of/nobody/known\"");
    deny(&mut domains, 7, "fs.write_file,fs.truncate path=\"/etc/passwd\"");
    deny(&mut domains, 7, "fs.write_file,fs.truncate path=\"/etc/passwd\"");
    deny(&mut domains, 7, "net.connect_tcp daddr=127.0.0.1 dest=80");
    let violations = domains.violations(cell);
    let [file, port] = violations.as_slice() else { panic!("{violations:?}") };
    assert_eq!((file.layer, file.evidence, file.count), (Layer::Landlock, Evidence::Kernel, 2));
    assert_eq!((file.operation.as_str(), file.object.as_str()), ("fs.write_file,fs.truncate", "/etc/passwd"));
    assert_eq!(file.errno.as_deref(), Some("EACCES"));
    assert_eq!(file.allow.as_deref(), Some("[filesystem]\nwrite = [\"/etc/passwd\"]"));
    assert!(file.first_us.is_some() && file.first_us <= file.last_us);
    let allow = Some("[network]\nallow = [\"127.0.0.1:80\"]".to_owned());
    assert_eq!((port.object.as_str(), &port.allow), ("127.0.0.1 port 80", &allow));
    assert!(domains.patience(INIT).is_some());
    end(&mut domains, 7, 4);
    assert_eq!(domains.patience(INIT), None);
    assert_eq!(verdict(&domains, cell, Floor::Full), (Coverage::Complete, None));
}

#[test]
fn a_program_that_was_not_let_listen_is_told_the_line_for_its_port() {
    let (mut domains, cell) = begun(7);
    for at in ["saddr=127.0.0.1 src=8080", "src=9000", "src=80", "saddr=127.0.0.1"] {
        deny(&mut domains, 7, &format!("net.bind_tcp {at}"));
    }
    let allow = domains.violations(cell).into_iter().map(|one| one.allow).collect::<Vec<_>>();
    let line = |port: u16| Some(format!("[network]\nlisten = [{port}]"));
    assert_eq!(allow, [line(8080), line(9000), None, None]);
}

#[test]
fn only_what_the_kernel_has_counted_is_complete() {
    let (mut domains, cell) = begun(7);
    let (coverage, why) = verdict(&domains, cell, Floor::Full);
    assert!(coverage == Coverage::Sampled && why.unwrap().contains("did not say"));
    end(&mut domains, 7, 3);
    let (coverage, why) = verdict(&domains, cell, Floor::Full);
    assert!(coverage == Coverage::Sampled && why.unwrap().contains("1 of 3"));
    deny(&mut domains, 7, "fs.execute path=\"/a\"");
    deny(&mut domains, 7, "fs.execute path=\"/b\"");
    assert_eq!(verdict(&domains, cell, Floor::Full), (Coverage::Complete, None));
    let (coverage, why) = verdict(&domains, cell, Floor::Landlock);
    assert!(coverage == Coverage::Sampled && why.unwrap().contains("signals"));
    let unheard = Cell { init: 999, ..cell };
    let (coverage, why) = verdict(&domains, unheard, Floor::Full);
    assert!(coverage == Coverage::Blind && why.unwrap().contains("nothing was logged"));
    assert_eq!(domains.patience(999), Some(UNHEARD));
}

#[test]
fn many_are_counted_and_few_are_kept() {
    let (mut domains, cell) = begun(7);
    for number in 0..100 {
        deny(&mut domains, 7, &format!("fs.execute path=\"/{number}\""));
        deny(&mut domains, 7, "fs.execute path=\"/0\"");
    }
    end(&mut domains, 7, 201);
    let found = found(&domains, cell);
    assert_eq!(found.len(), 33);
    assert_eq!(found[0], ("fs.execute".to_owned(), "/0".to_owned(), 101));
    assert_eq!(found[32].2, 100 - 32);
    assert_eq!(found.iter().map(|(_, _, count)| count).sum::<u64>(), 200);
    let (coverage, why) = verdict(&domains, cell, Floor::Full);
    assert!(coverage == Coverage::Sampled && why.unwrap().contains("too many"));
}

#[test]
fn strangers_make_room_and_cells_do_not() {
    let (mut domains, cell) = begun(7);
    for domain in 100..1000_u64 {
        deny(&mut domains, domain, "fs.execute path=\"/a\"");
        allocate(&mut domains, domain, 1000 + i32::try_from(domain).unwrap());
    }
    assert_eq!(domains.known.len(), STRANGERS + 1);
    end(&mut domains, 7, 1);
    assert_eq!(verdict(&domains, cell, Floor::Full), (Coverage::Complete, None));
    // One that is a cell's is told of before the cell is known.
    domains.expect(1999);
    domains.forget(INIT);
    assert_eq!(found(&domains, Cell { init: 1999, own: 0, ..cell }).len(), 1);
    assert!(found(&domains, cell).is_empty());
}

#[test]
fn a_process_number_that_comes_again_is_the_last_domains() {
    let (mut domains, cell) = begun(7);
    domains.forget(INIT);
    end(&mut domains, 7, 1);
    domains.expect(INIT);
    assert_eq!(domains.patience(INIT), Some(UNHEARD));
    deny(&mut domains, 8, "fs.read_file path=\"/canary\"");
    allocate(&mut domains, 8, INIT);
    deny(&mut domains, 8, "fs.execute path=\"/b\"");
    assert_eq!(found(&domains, cell), [("fs.execute".to_owned(), "/b".to_owned(), 1)]);
}

#[test]
fn each_right_has_its_errno_and_the_line_that_grants_it() {
    let cases = [
        ("fs.read_file", Some(libc::EACCES), Some(Operation::Read)),
        ("fs.read_dir", Some(libc::EACCES), Some(Operation::Read)),
        ("fs.execute", Some(libc::EACCES), Some(Operation::Exec)),
        ("fs.read_file,fs.write_file", Some(libc::EACCES), Some(Operation::Write)),
        ("fs.make_reg,fs.refer", Some(libc::EACCES), Some(Operation::Write)),
        ("fs.refer", None, Some(Operation::Write)),
        ("fs.make_char", Some(libc::EACCES), None),
        ("fs.ioctl_dev", Some(libc::EACCES), None),
        ("fs.change_topology", Some(libc::EPERM), None),
        ("net.bind_tcp", Some(libc::EACCES), None),
        ("scope.signal", Some(libc::EPERM), None),
        ("ptrace", Some(libc::EPERM), None),
    ];
    for (rights, number, way) in cases {
        assert_eq!((errno(rights), operation(rights)), (number.map(Errno), way), "{rights}");
    }
}
