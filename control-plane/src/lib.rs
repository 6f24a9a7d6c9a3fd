//! Playback authorization, steering, fleet health, events, catalog and the console's API
