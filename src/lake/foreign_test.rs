//! A lake that is ahead or foreign: other programs' commits are passed over where that is safe, else refused with the reason.
