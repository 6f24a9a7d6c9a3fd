//! HLS: the playlists of a title.
