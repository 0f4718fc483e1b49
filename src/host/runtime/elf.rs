//! Reads from a 64-bit ELF file what its loader would look for: interpreter, libraries, search paths.
//!
//! Neighbours: `libraries` asks it for each object. Never: trusts an offset, a size or a count of the file.

/// More entries of one kind than any real program has; what is beyond is not looked at.
const MAX_ENTRIES: usize = 512;
const MAX_STRING: usize = 4096;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const DYNAMIC_ENTRY: usize = 16;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// The machine that this program was built for, in the terms of `e_machine`.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// What one object asks of the loader. All empty: it is static.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Elf {
    /// `PT_INTERP`.
    pub(super) interpreter: Option<String>,
    /// `DT_NEEDED`, in order.
    pub(super) needed: Vec<String>,
    /// `DT_RUNPATH`, or `DT_RPATH` when there is none, split at colons.
    pub(super) search: Vec<String>,
}

/// Reads an object through `at(offset, length)`, which may give fewer bytes than asked for.
/// The error says what is wrong with the file.
pub(super) fn read(at: &dyn Fn(u64, usize) -> Vec<u8>) -> Result<Elf, &'static str> {
    let header = at(0, HEADER);
    if !header.starts_with(b"\x7fELF") {
        return Err("it is not an ELF file");
    }
    match (header.get(4), header.get(5)) {
        (Some(2), Some(1)) => {}
        (Some(1), _) => return Err("it is a 32-bit program"),
        _ => return Err("its ELF header is not valid"),
    }
    if u16_at(&header, 18) != Some(MACHINE) {
        return Err("it is built for another machine");
    }
    let (Some(table), Some(size), Some(count)) =
        (u64_at(&header, 32), u16_at(&header, 54), u16_at(&header, 56))
    else {
        return Err("its ELF header is cut off");
    };
    if usize::from(size) != PROGRAM_HEADER && count > 0 {
        return Err("its program headers have an unknown size");
    }
    let count = usize::from(count).min(MAX_ENTRIES);
    let segments: Vec<Segment> =
        at(table, count * PROGRAM_HEADER).chunks_exact(PROGRAM_HEADER).filter_map(Segment::parse).collect();

    let mut elf = Elf::default();
    if let Some(segment) = segments.iter().find(|s| s.kind == PT_INTERP) {
        elf.interpreter = Some(string(at, segment.offset).ok_or("its interpreter's name is not valid")?);
    }
    if let Some(segment) = segments.iter().find(|s| s.kind == PT_DYNAMIC) {
        dynamic(at, segment, &segments, &mut elf);
    }
    Ok(elf)
}

fn dynamic(at: &dyn Fn(u64, usize) -> Vec<u8>, segment: &Segment, all: &[Segment], elf: &mut Elf) {
    let length = usize::try_from(segment.size).unwrap_or(usize::MAX).min(MAX_ENTRIES * DYNAMIC_ENTRY);
    let bytes = at(segment.offset, length);
    let entries: Vec<(u64, u64)> = bytes
        .chunks_exact(DYNAMIC_ENTRY)
        .filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)))
        .take_while(|(tag, _)| *tag != 0)
        .collect();
    let value = |wanted: u64| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
    let Some(strings) = value(DT_STRTAB).and_then(|address| file_offset(all, address)) else { return };
    let name = |offset: u64| string(at, strings.checked_add(offset)?);
    elf.needed =
        entries.iter().filter(|(tag, _)| *tag == DT_NEEDED).filter_map(|(_, offset)| name(*offset)).collect();
    elf.search = value(DT_RUNPATH)
        .or_else(|| value(DT_RPATH))
        .and_then(name)
        .map(|list| list.split(':').filter(|part| !part.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default();
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

impl Segment {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            kind: u32_at(bytes, 0)?,
            offset: u64_at(bytes, 8)?,
            address: u64_at(bytes, 16)?,
            size: u64_at(bytes, 32)?,
        })
    }
}

fn file_offset(segments: &[Segment], address: u64) -> Option<u64> {
    segments.iter().filter(|s| s.kind == PT_LOAD).find_map(|s| {
        let within = address.checked_sub(s.address)?;
        if within < s.size { s.offset.checked_add(within) } else { None }
    })
}

/// A name ended by a zero byte; `None` when it is empty, not UTF-8 or has no end.
fn string(at: &dyn Fn(u64, usize) -> Vec<u8>, offset: u64) -> Option<String> {
    let bytes = at(offset, MAX_STRING);
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(bytes.get(..end)?).ok()?;
    if text.is_empty() { None } else { Some(text.to_owned()) }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// Builds small objects for tests.
#[cfg(test)]
pub(super) mod sample {
    use super::*;

    /// An object with one load segment over the whole file.
    pub(crate) fn object(interpreter: Option<&str>, needed: &[&str], runpath: Option<&str>) -> Vec<u8> {
        let data = HEADER + 3 * PROGRAM_HEADER;
        let mut strings = vec![0_u8];
        let mut entries = vec![(DT_STRTAB, data as u64)];
        for (tag, name) in needed.iter().map(|n| (DT_NEEDED, *n)).chain(runpath.map(|r| (DT_RUNPATH, r))) {
            entries.push((tag, strings.len() as u64));
            strings.extend(name.bytes().chain([0]));
        }
        entries.push((0, 0));
        let interp_at = data + strings.len();
        strings.extend(interpreter.unwrap_or_default().bytes().chain([0]));
        let dynamic_at = data + strings.len();
        let end = dynamic_at + entries.len() * DYNAMIC_ENTRY;
        let mut out = vec![0_u8; HEADER];
        out[..6].copy_from_slice(b"\x7fELF\x02\x01");
        out[18..20].copy_from_slice(&MACHINE.to_le_bytes());
        out[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
        out[54..56].copy_from_slice(&56_u16.to_le_bytes());
        out[56..58].copy_from_slice(&3_u16.to_le_bytes());
        let interp = if interpreter.is_some() { PT_INTERP } else { 0 };
        let dynamic = if needed.is_empty() && runpath.is_none() { 0 } else { PT_DYNAMIC };
        for (kind, offset, size) in [
            (PT_LOAD, 0, end),
            (interp, interp_at, dynamic_at - interp_at),
            (dynamic, dynamic_at, end - dynamic_at),
        ] {
            let mut segment = vec![0_u8; PROGRAM_HEADER];
            segment[..4].copy_from_slice(&kind.to_le_bytes());
            segment[8..16].copy_from_slice(&(offset as u64).to_le_bytes());
            segment[16..24].copy_from_slice(&(offset as u64).to_le_bytes());
            segment[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            out.extend(segment);
        }
        out.extend(strings);
        for (tag, value) in entries {
            out.extend(tag.to_le_bytes().into_iter().chain(value.to_le_bytes()));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Elf, &'static str> {
        read(&|offset, length| {
            let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
            rest.get(..length).unwrap_or(rest).to_vec()
        })
    }

    #[test]
    fn a_dynamic_object_tells_its_interpreter_libraries_and_search_path() {
        let elf = parse(&sample::object(
            Some("/lib64/ld.so"),
            &["liba.so", "libb.so.1"],
            Some("$ORIGIN/../lib:/x"),
        ));
        assert_eq!(
            elf,
            Ok(Elf {
                interpreter: Some("/lib64/ld.so".into()),
                needed: vec!["liba.so".into(), "libb.so.1".into()],
                search: vec!["$ORIGIN/../lib".into(), "/x".into()],
            })
        );
    }

    #[test]
    fn a_static_object_asks_for_nothing() {
        assert_eq!(parse(&sample::object(None, &[], None)), Ok(Elf::default()));
    }

    #[test]
    fn other_machines_and_cut_headers_are_refused() {
        let mut other = sample::object(None, &[], None);
        other[18] = 0xf3;
        assert_eq!(parse(&other), Err("it is built for another machine"));
        other[4] = 1;
        assert_eq!(parse(&other), Err("it is a 32-bit program"));
        assert_eq!(parse(b"\x7fELF"), Err("its ELF header is not valid"));
    }

    proptest! {
        #[test]
        fn damaged_objects_end_in_a_value(places in proptest::collection::vec((0_usize..600, any::<u8>()), 0..24), keep in 0_usize..600) {
            let mut bytes = sample::object(Some("/lib64/ld.so"), &["liba.so"], Some("/x"));
            for (place, value) in places {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = value;
                }
            }
            bytes.truncate(keep.max(6));
            prop_assert!(parse(&bytes).map_or(true, |elf| elf.needed.len() <= MAX_ENTRIES));
        }
    }
}
