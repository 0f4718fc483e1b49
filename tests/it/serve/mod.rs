//! `toolcell serve` as its clients see it. Never: looks inside.

mod auth;
mod encrypted;
mod http;
mod instances;
mod legacy;
mod life;
mod modern;
mod refused;
mod several;
