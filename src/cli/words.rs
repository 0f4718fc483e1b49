//! The words that start `toolcell run` as it was typed, for a child that is one.
//!
//! Neighbours: `commands` start children with them. Never: decides anything; what was typed for all is typed for each.

use std::ffi::OsString;

use super::{ColorChoice, RunArgs, Server, SharedArgs};
use crate::policy::config::state::State;

impl RunArgs {
    /// The arguments, without the program.
    #[must_use]
    pub fn words(&self, color: ColorChoice) -> Vec<OsString> {
        let mut all: Vec<OsString> = vec!["run".into()];
        let mut add = |option: &str, value: OsString| {
            // In one word, so that a value that begins with a dash stays one.
            let mut word = OsString::from(option);
            word.push("=");
            word.push(value);
            all.push(word);
        };
        let Self {
            server,
            jobs,
            spares,
            spares_memory,
            spares_idle,
            state,
            no_validate,
            lock,
            lists_only,
            shared,
        } = self;
        let SharedArgs {
            profile,
            read,
            write,
            env,
            memory,
            cpu,
            tasks,
            timeout,
            scratch,
            floor,
            writes,
            net,
            listen,
            audit,
        } = shared;
        for typed in [profile, memory, cpu, tasks, timeout, scratch, jobs, spares, spares_memory, spares_idle]
            .into_iter()
            .flatten()
            .chain(env)
            .chain(net)
            .chain(listen)
        {
            add(typed.option, typed.text.clone().into());
        }
        for (option, paths) in [("--read", read), ("--write", write)] {
            paths.iter().for_each(|path| add(option, path.clone().into()));
        }
        for (option, path) in [("--audit", audit), ("--lock", lock)] {
            path.iter().for_each(|path| add(option, path.clone().into()));
        }
        if let Some(floor) = floor {
            add("--floor", floor.name().into());
        }
        if let Some(writes) = writes {
            add("--writes", writes.name().into());
        }
        if let Some(state) = state {
            add("--state", if *state == State::Session { "session".into() } else { "call".into() });
        }
        let color = match color {
            ColorChoice::Auto => "auto",
            ColorChoice::Always => "always",
            ColorChoice::Never => "never",
        };
        add("--color", color.into());
        if let Server::Configured { config, .. } | Server::Several { config, .. } = server {
            add("--config", config.clone().into());
        }
        for (flag, typed) in [("--no-validate", no_validate), ("--lists-only", lists_only)] {
            if *typed {
                all.push(flag.into());
            }
        }
        match server {
            Server::Configured { name, .. } => all.extend(name.iter().map(OsString::from)),
            Server::Several { names, .. } if names.is_empty() => all.push("--all".into()),
            Server::Several { names, .. } => all.extend(names.iter().map(OsString::from)),
            Server::Command(command) => {
                all.push("--".into());
                all.extend(command.iter().cloned());
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Invocation, parse};
    use super::*;

    #[test]
    fn a_child_is_told_what_was_typed() {
        for typed in [
            "--jobs 3 --spares 1 --spares-memory 1MiB --spares-idle 5m --profile p --memory 1GiB --cpu 2 --tasks 9 --timeout 3s --scratch 0 --env A --env B=--c --lock l --audit a \
             --read r1 --read=-r2 --write w --floor no-cgroup --net a.example:443 --net [::1]:1 --listen 8080 --listen 9000=/x --writes discard --no-validate --config f one two",
            "--config f --all",
            "--config f one",
            "--config f",
            "--state session --lists-only -- server -x --y",
        ] {
            let words = |words: Vec<OsString>| [vec![OsString::from("toolcell")], words].concat();
            let typed = typed.split_whitespace().map(OsString::from).collect::<Vec<_>>();
            let typed = parse(words([vec![OsString::from("run")], typed].concat())).unwrap();
            let Invocation::Run(run) = &typed.invocation else { panic!("{typed:?}") };
            let again = parse(words(run.words(ColorChoice::Never))).unwrap();
            assert_eq!((again.color, &again.invocation), (ColorChoice::Never, &typed.invocation));
        }
    }
}
