//! The C interface of vDPA.
