//! What the fuzz targets look for, without a fuzzer: every input of the corpora, and inputs made from them.
//!
//! Neighbours: `fuzz/properties` says what must hold, `scripts/fuzz` lets a fuzzer look for more inputs. Never: knows a
//! property.

use std::fs;

use proptest::prelude::*;

#[expect(unreachable_pub, reason = "the library of the fuzz targets, for which it is public")]
#[path = "../../fuzz/properties/mod.rs"]
mod properties;

/// The inputs of a target. The working directory is the project's, or that of a copy of it.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("fuzz/corpus/{target}");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder} is empty");
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// An input with some of its bytes replaced, and the start of another behind a part of it.
fn varied(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let inputs = prop::sample::select(corpus(target));
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let cuts = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>());
    (inputs.clone(), inputs, edits, cuts).prop_map(|(mut one, other, edits, (end, start, joined))| {
        for (place, byte) in edits {
            if !one.is_empty() {
                let place = place.index(one.len());
                one[place] = byte;
            }
        }
        if joined {
            one.truncate(end.index(one.len() + 1));
            one.extend_from_slice(&other[start.index(other.len() + 1)..]);
        }
        one
    })
}

/// Both for a target.
macro_rules! targets {
    ($($target:ident)*) => {
        $(mod $target {
            use super::*;

            #[test]
            fn holds_for_the_corpus() {
                corpus(stringify!($target)).iter().for_each(|input| properties::$target::check(input));
            }

            proptest! {
                #[test]
                fn holds_for_what_is_near_it(input in varied(stringify!($target))) {
                    properties::$target::check(&input);
                }
            }
        })*

        #[test]
        fn every_corpus_is_tried() {
            let mut folders: Vec<_> =
                fs::read_dir("fuzz/corpus").unwrap().map(|entry| entry.unwrap().file_name()).collect();
            folders.sort();
            let mut tried = vec![$(stringify!($target)),*];
            tried.sort_unstable();
            assert_eq!(folders, tried);
        }
    };
}

targets!(audited doors filters frames locks messages narrowing profiles protocol roles secrets signatures);

/// Else a fuzzer begins with what is refused at once.
#[test]
fn the_seeds_of_signatures_are_right() {
    let seeds: Vec<Vec<u8>> = corpus("signatures");
    let right = seeds.iter().filter(|line| properties::signatures::is_right(line) == Some(true)).count();
    assert!(right >= 4, "{right}");
}

/// Else a fuzzer begins with what is refused at once.
#[test]
fn the_seeds_of_the_protocol_are_messages() {
    for entry in fs::read_dir("fuzz/corpus/protocol").unwrap() {
        let path = entry.unwrap().path();
        let seed = path.file_name().unwrap().to_str().unwrap().starts_with("seed-");
        assert!(!seed || properties::protocol::is_message(&fs::read(&path).unwrap()), "{}", path.display());
    }
}
