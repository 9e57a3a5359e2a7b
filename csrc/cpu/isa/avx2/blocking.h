// How the matrix product is cut for this instruction set: a tile of kTileM rows by kTileVectors vectors
// stays in registers; kPanelsA panels of A are prepared together, and meet one panel of B after the other.
#pragma once
namespace smelt {
namespace {
constexpr int kTileM = 6;
constexpr int kTileVectors = 2;
constexpr int kPanelsA = 16;
constexpr long kBlockK = 256, kBlockN = 1024;
constexpr long kBlockB = 1 << 20;
}  // namespace
}  // namespace smelt
