//! Doors: real clients in real cells, and hosts of the tests' own making on this host's loopback. Never: reaches the network.

mod attacks;
mod bounds;
mod clients;
mod ended;
mod inbound;
mod names;
mod outside;
mod porter;
mod served;
mod started;
mod tls;
mod unix;
mod upstream;
mod waits;
mod world;
