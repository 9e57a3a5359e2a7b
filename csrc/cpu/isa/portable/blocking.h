// How the matrix product is cut for this instruction set: a tile of kTileM rows by kTileN vectors stays in registers.
#pragma once
namespace smelt {
namespace {
constexpr int kTileM = 4;
constexpr int kTileVectors = 2;
constexpr long kBlockK = 256, kBlockN = 512;
}  // namespace
}  // namespace smelt
