//! Slices, over simulated network devices: which frames go where, what is refused, what one slice can do to the others.

mod conformance;
mod forwarding;
mod hostile;
mod management;
mod rig;
