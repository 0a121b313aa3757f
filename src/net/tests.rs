#[cfg(feature = "sim")]
mod commands;
#[cfg(feature = "sim")]
mod manage;
mod misbehaving;
#[cfg(feature = "sim")]
mod offloads;
#[cfg(feature = "sim")]
mod simulated;
