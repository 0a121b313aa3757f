mod misbehaving;
#[cfg(feature = "sim")]
mod simulated;
