//! A vDPA parent of mediated devices.
