//! Describes `toolcell serve` to clap.
//!
//! Neighbours: `cli::definition` has it among the commands, and what it has in common with `run`. Never: holds a parsed value.

use std::net::SocketAddr;

use clap::{ArgAction, Command, value_parser};

use super::options::{Takes, flag, value};
use super::supervised;

const NETWORK: &str = "Network";

pub(super) fn serve(command: Command) -> Command {
    let command = command
        .override_usage(
            "toolcell serve [OPTIONS] --http ADDRESS:PORT -- SERVER [ARGS]...\n       \
             toolcell serve [OPTIONS] --http ADDRESS:PORT --config FILE [NAME]...",
        )
        .long_about(
            "Serve MCP over HTTP, for clients and gateways that need a network.\n\n\
             The same as `run`, over the protocol's Streamable HTTP transport at the path `/mcp`. This process \
             speaks HTTP alone; behind it are processes of `toolcell run`: one for all clients of 2026-07-28 and \
             later, one for each session of earlier ones. `/healthz` says whether requests are answered. Off \
             loopback there must be `[auth]` in the configuration, and TLS. SIGTERM and SIGINT end it in order.",
        )
        .arg(
            value("http", Takes::Text, "ADDRESS:PORT")
                .required(true)
                .value_parser(value_parser!(SocketAddr))
                .help_heading(NETWORK)
                .help("Listen here, such as 127.0.0.1:8080; port 0 takes a free one"),
        )
        .arg(
            value("tls-cert", Takes::Path, "FILE")
                .requires("tls-key")
                .help_heading(NETWORK)
                .help("Offer TLS with this chain of certificates (PEM)"),
        )
        .arg(
            value("tls-key", Takes::Path, "FILE")
                .requires("tls-cert")
                .help_heading(NETWORK)
                .help("The private key of the first of them (PEM)"),
        )
        .arg(
            flag("behind-tls-proxy", "Off loopback without TLS: a proxy in front ends it")
                .conflicts_with("tls-cert")
                .help_heading(NETWORK),
        )
        .arg(
            value("allow-host", Takes::Text, "NAME")
                .action(ArgAction::Append)
                .help_heading(NETWORK)
                .help("A name that clients call this host, beside its address; may be repeated")
                .long_help(
                    "A name that clients call this host, beside the address that is listened on. May be repeated. \
                     A request whose header `Host` has another is refused (403): a page could have sent it.",
                ),
        )
        .arg(
            value("allow-origin", Takes::Text, "ORIGIN")
                .action(ArgAction::Append)
                .help_heading(NETWORK)
                .help("An origin whose pages may send requests, such as https://app.example; may be repeated"),
        )
        .arg(
            value("sessions", Takes::Text, "NUMBER")
                .help_heading(NETWORK)
                .help("Sessions of clients before 2026-07-28 at once, a process each [default: 32]"),
        )
        .arg(
            value("session-idle", Takes::Text, "TIME")
                .help_heading(NETWORK)
                .help("End such a session when it was idle for so long [default: 10m]"),
        );
    supervised(command).after_help(
        "Examples:\n  toolcell serve --http 127.0.0.1:8080 -- mcp-server-time\n  \
         toolcell serve --http 127.0.0.1:8080 --config servers.toml git\n  \
         toolcell serve --http 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem --allow-host tools.example --config servers.toml\n  \
         toolcell serve --http 10.0.0.7:8080 --behind-tls-proxy --allow-host tools.example --config servers.toml",
    )
}
