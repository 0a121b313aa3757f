#[cfg(feature = "sim")]
mod commands;
mod misbehaving;
#[cfg(feature = "sim")]
mod offloads;
#[cfg(feature = "sim")]
mod simulated;
