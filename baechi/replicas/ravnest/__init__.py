"""Ravnest: clusters of unlike peers, an asynchronous pipeline within each, and ring averages across them.

Source: Menon et al., "Ravnest: Decentralized asynchronous training on heterogeneous devices" (2401.01728). The model
is split by our placers instead of in proportion to memory.
"""
