// How the matrix product is cut for this instruction set.
#pragma once
namespace smelt {
namespace {
constexpr int kTileM = 6, kTileVectors = 2;   // a tile of rows by vectors that stays in registers
constexpr int kTallM = kTileM, kTallVectors = kTileVectors;  // no other one
constexpr int kPanelsA = 16;                  // panels of A that meet one panel of B after the other
constexpr long kBlockK = 256, kBlockN = 1024; // longest depth of a tile, columns that are packed together
constexpr long kBlockB = 1 << 20;             // elements of B that are packed together, whole blocks of the depth
}  // namespace
}  // namespace smelt
