//! The vDPA device contract: parents below, users above.
