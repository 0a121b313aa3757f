//! A device file that is opened here, or comes from somebody else.
