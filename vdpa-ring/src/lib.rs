//! Split and packed virtqueues, device half and driver half.
