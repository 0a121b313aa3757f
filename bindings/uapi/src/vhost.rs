//! vhost
mod numbers;
pub(crate) use numbers::ROWS;
pub use numbers::*;
