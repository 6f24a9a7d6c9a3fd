//! WebVTT: checked and written anew.
