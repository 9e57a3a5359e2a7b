// How the matrix product of pairs is cut for this instruction set.
#pragma once
namespace smelt {
namespace {
constexpr int kTileM = 0, kTileVectors = 0;    // not used: a tile is 2 x 2 tile registers
constexpr int kTallM = kTileM, kTallVectors = kTileVectors;  // no other one
constexpr int kPanelsA = 16;                   // panels of A that meet one panel of B after the other: half a megabyte
constexpr long kBlockK = 256, kBlockN = 1024;  // longest depth of a tile in pairs, columns that are packed together
constexpr long kBlockB = 1 << 20;              // pairs of B that are packed together, whole blocks of the depth
}  // namespace
}  // namespace smelt
