"""SPGSN computed step by step as its equations read: batch-major, one tree after another.

What `benchmarks/spgsn.py` compares with. Written from the description of the official computation,
with its parameter names (so that our weights convert), without its leftovers: no debugging print,
no Laplacian that is thrown away, no unused matrices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


class GraphConv(nn.Module):
    def __init__(self, num_nodes: int, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight, self.bias = parameter(num_in, num_out), parameter(num_out)
        self.att = parameter(num_nodes, num_nodes)

    def forward(self, x):
        return torch.matmul(self.att, torch.matmul(x, self.weight)) + self.bias


class GraphOperate(nn.Module):
    def __init__(self, num_filters: int, width: int) -> None:
        super().__init__()
        self.weight, self.bias = parameter(num_filters, width, width), parameter(num_filters, width)

    def forward(self, x, graph, which: int = 0):
        return torch.matmul(graph, torch.matmul(x, self.weight[which]) + self.bias[which])


class Tree(nn.Module):
    def __init__(self, num_filters: int, width: int) -> None:
        super().__init__()
        self.num_filters = num_filters
        self.f_coef = parameter(2 * num_filters)
        self.feat_gcn = GraphOperate(1, width)
        self.feat_sc1 = GraphOperate(num_filters, width)
        self.feat_sc2 = GraphOperate(num_filters, width)

    def filters(self, graph):
        identity = torch.eye(len(graph), dtype=graph.dtype)
        power = (identity + graph / (graph.norm() + 1e-3).detach()) / 2
        c = self.f_coef
        filters = [(1 + c[0]) * identity - (1 - c[1]) * power]
        for j in range(1, self.num_filters):
            filters.append(power @ ((1 + c[2 * j]) * identity - (1 - c[2 * j + 1]) * power))
            power = power @ power
        return filters

    def forward(self, x, graph):
        filters = self.filters(graph)
        channels = [self.feat_gcn(x, graph)]
        for k, first in enumerate(filters):
            wave = torch.tanh(self.feat_sc1(x, first, k))
            channels += [self.feat_sc2(wave, second, j) for j, second in enumerate(filters)]
        return torch.stack(channels, 1)  # batch, channel, node, width


class Fuse(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc_up1, self.fc_up2 = nn.Linear(width, 64, False), nn.Linear(64, 64, False)
        self.fc_down1, self.fc_down2 = nn.Linear(width, 64, False), nn.Linear(64, 64, False)

    def forward(self, upper, lower):
        up = self.fc_up2(F.relu(self.fc_up1(upper.mean(1))))
        down = self.fc_down2(F.relu(self.fc_down1(lower.mean(1))))
        down_to_up = torch.softmax(torch.matmul(up, down.transpose(1, 2)), -1)
        up_to_down = torch.softmax(torch.matmul(down, up.transpose(1, 2)), -1)
        lower = lower + torch.matmul(up_to_down.unsqueeze(1), upper)
        upper = upper + torch.matmul(down_to_up.unsqueeze(1), lower)
        return upper, lower


class Forest(nn.Module):
    def __init__(self, num_nodes: int, width: int, num_filters: int, upper, lower) -> None:
        super().__init__()
        self.upper, self.lower = upper, lower
        self.att1 = parameter(num_nodes, num_nodes)
        self.att_up1 = parameter(len(upper), len(upper))
        self.att_down1 = parameter(len(lower), len(lower))
        self.scat_tree = Tree(num_filters, width)
        self.partfuse = Fuse(width)

    def forward(self, x, mask, mask_upper, mask_lower):
        y = self.scat_tree(x, self.att1 * mask)
        upper = self.scat_tree(x[:, self.upper], self.att_up1 * mask_upper)
        lower = self.scat_tree(x[:, self.lower], self.att_down1 * mask_lower)
        upper, lower = self.partfuse(upper, lower)
        parts = torch.zeros_like(y)
        parts[:, :, self.upper] = upper
        parts[:, :, self.lower] = lower
        return y + parts


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.w_h, self.w_q, self.bs = (
            parameter(width, width),
            parameter(width, width),
            parameter(width),
        )
        self.fc1, self.fc2 = nn.Linear(width, width, False), nn.Linear(width, 1)

    def forward(self, y):
        embedded = self.fc1(y)
        query = F.relu(embedded.mean(1, keepdim=True))
        hidden = torch.tanh(
            torch.matmul(embedded, self.w_h) + torch.matmul(query, self.w_q) + self.bs
        )
        return torch.softmax(self.fc2(hidden), 1)


class Block(nn.Module):
    def __init__(self, num_nodes: int, width: int, num_filters: int, dropout: float, upper, lower):
        super().__init__()
        self.gc1 = Forest(num_nodes, width, num_filters, upper, lower)
        self.bn1_conv = nn.BatchNorm1d(num_nodes * width)
        self.bn1_scat = nn.BatchNorm1d(num_nodes * width)
        self.bn2_conv = nn.BatchNorm1d(num_nodes * width)
        self.att_Sigmoid1 = Attention(width)
        self.gc2 = GraphOperate(1, width)
        self.att1 = parameter(num_nodes, num_nodes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, masks):
        y = self.gc1(x, *masks)
        batch, channels, nodes, width = y.shape
        low = self.bn1_conv(y[:, 0].reshape(batch, -1)).view(batch, 1, nodes, width)
        bands = self.bn1_scat(y[:, 1:].reshape(batch * (channels - 1), -1))
        y = torch.tanh(torch.cat([low, bands.view(batch, channels - 1, nodes, width)], 1))
        y = (y + 0.1 * self.att_Sigmoid1(y) * y).mean(1)
        y = self.gc2(self.dropout(y), self.att1)
        y = F.relu(self.bn2_conv(y.reshape(batch, -1)).view(batch, nodes, width))
        return self.dropout(y) + x


class Straightforward(nn.Module):
    def __init__(
        self, num_nodes, num_coeffs, width, num_blocks, num_filters, dropout, upper, lower
    ):
        super().__init__()
        upper, lower = ([3 * j + axis for axis in range(3) for j in p] for p in (upper, lower))
        self.gc1 = GraphConv(num_nodes, num_coeffs, width)
        self.bn1 = nn.BatchNorm1d(num_nodes * width)
        self.gcbs = nn.ModuleList(
            Block(num_nodes, width, num_filters, dropout, upper, lower) for _ in range(num_blocks)
        )
        self.gc7 = GraphConv(num_nodes, width, num_coeffs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, masks):
        y = self.gc1(x)
        y = torch.tanh(self.bn1(y.flatten(1)).view_as(y))
        y = self.dropout(y)
        for block, mask in zip(self.gcbs, masks, strict=True):
            y = block(y, mask)
        return self.gc7(y) + x
