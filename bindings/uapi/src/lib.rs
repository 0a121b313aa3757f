//! Kernel interfaces of vDPA that no other crate has.
