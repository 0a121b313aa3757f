//! What the crates tell `tracing`, as text on standard error.

use std::io;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::options::Level;

/// What is told without being asked for: the seed of faults that were given none, or they could not be made again.
const ALWAYS: &str = "off,vdpa::seed=info";

/// Listens from here on, as `--trace` says, or else RUST_LOG.
pub(crate) fn listen(trace: Option<Level>) -> Result<(), Failure> {
    let asked = match trace {
        Some(Level::Error) => "vdpa=error".to_owned(),
        Some(Level::Warn) => "vdpa=warn".to_owned(),
        Some(Level::Info) => "vdpa=info".to_owned(),
        Some(Level::Debug) => "vdpa=debug".to_owned(),
        Some(Level::Trace) => "vdpa=trace".to_owned(),
        None => std::env::var(EnvFilter::DEFAULT_ENV)
            .ok()
            .filter(|asked| !asked.is_empty())
            .unwrap_or_else(|| ALWAYS.to_owned()),
    };
    let filter = EnvFilter::try_new(&asked)
        .with_context(|| format!("RUST_LOG={asked} is no filter, such as vdpa=debug"))
        .map_err(Failure::Input)?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false);
    // There is none before.
    let _second = subscriber.try_init();
    Ok(())
}
