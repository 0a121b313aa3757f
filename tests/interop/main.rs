//! Devices in front of programs that nobody here wrote, and our drivers in front of theirs.
