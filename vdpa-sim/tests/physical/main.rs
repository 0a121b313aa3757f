//! A physical function: virtual functions that come and go, stop, and move.

mod bench;
mod coming;
#[path = "../disk/mod.rs"]
mod disk;
#[path = "../gate/mod.rs"]
mod gate;
mod moving;
mod parts;
#[path = "../rig/mod.rs"]
mod rig;
mod session;
mod stopping;
mod strings;
