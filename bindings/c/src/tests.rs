//! What C cannot show.
