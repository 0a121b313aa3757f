//! A vDPA parent fully in software.
