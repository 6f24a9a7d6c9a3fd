//! nearcast's own client: HTTP/1.1, 2 and 3, and a player that checks every byte
