"""DEIMv2 as its authors wrote it, where transformers' model departs from it (seen in 5.24): the
weights that they published answer the same numbers through this (tests/models/test_deimv2.py).

https://github.com/Intellindust-AI-Lab/DEIMv2/blob/main/engine/deim/deim_decoder.py
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn


def as_published(model: Any) -> None:
    """Change a Deimv2ForObjectDetection: SiLU in the small networks of its decoder, nothing between
    the encoder's maps and the choice of queries, and the decoder below."""
    model.model.enc_output = nn.Identity()
    decoder = model.model.decoder
    for part in (model.model.enc_bbox_head, decoder):
        for module in part.modules():
            if type(module).__name__ == "Deimv2MLP":
                module.act = nn.SiLU()
    decoder.__class__ = _decoder_class()  # in place: names and weights stay


@lru_cache(maxsize=1)
def _decoder_class() -> type[nn.Module]:
    from transformers.models.deimv2 import modeling_deimv2

    theirs: Any = modeling_deimv2

    class PublishedDecoder(theirs.Deimv2Decoder):  # type: ignore[misc]
        """Queries keep the position of their first box in every layer; transformers gives them
        that of the box so far, as D-FINE does."""

        def forward(
            self,
            encoder_hidden_states: Tensor,
            reference_points: Tensor,
            inputs_embeds: Tensor,
            **shapes: Any,
        ) -> Any:
            """inputs_embeds [B, Q, C]: queries; reference_points [B, Q, 4]: logits of their boxes;
            encoder_hidden_states: all levels [B, cells, C]; shapes: of the levels."""
            project = theirs.weighting_function(self.max_num_bins, self.up, self.reg_scale)
            queries, boxes = inputs_embeds, reference_points.sigmoid()
            places = self.query_pos_head(boxes).clamp(min=-10, max=10)
            before: Any = 0
            corners: Any = 0
            states, logits, refined, predicted, firsts = [], [], [], [], []
            first: Any = None
            for index, layer in enumerate(self.layers):
                queries = layer(
                    queries,
                    position_embeddings=places,
                    reference_points=boxes.unsqueeze(2),
                    encoder_hidden_states=encoder_hidden_states,
                    **shapes,
                )
                if index == 0:
                    initial = self.pre_bbox_head(queries) + theirs.inverse_sigmoid(boxes)
                    initial = initial.sigmoid()
                    first = initial.detach()
                corners = self.bbox_embed[index](queries + before) + corners
                distances = self.integral(corners, project)
                found = theirs.distance2bbox(first, distances, self.reg_scale)
                boxes, before = found.detach(), queries.detach()
                states.append(queries)
                if not self.training and index != self.eval_idx:
                    continue
                scores = self.class_embed[index](queries)
                if index == 0:  # the loss wants the first guess, too
                    logits.append(scores)
                    refined.append(initial)
                logits.append(self.lqe_layers[index](scores, corners))
                refined.append(found)
                predicted.append(corners)
                firsts.append(first)
            return theirs.Deimv2DecoderOutput(
                last_hidden_state=queries,
                intermediate_hidden_states=torch.stack(states),
                intermediate_logits=torch.stack(logits, 1),
                intermediate_reference_points=torch.stack(refined, 1),
                intermediate_predicted_corners=torch.stack(predicted, 1),
                initial_reference_points=torch.stack(firsts, 1),
            )

    return PublishedDecoder
