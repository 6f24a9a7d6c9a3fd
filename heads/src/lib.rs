//! What an edge knows of each stored response, on disk and in memory, and the purges that end it.
