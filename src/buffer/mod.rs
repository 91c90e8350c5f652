//! (being written)

mod batch;

pub use batch::PartitionBatch;
