import math

import pytest
import torch

from stages.core.loss import IGNORED, collate, n_supervised, summed_loss


def test_labels_follow_the_mask_by_position_whatever_the_token():
    batch = collate([[5, 0, 0], [7]], [[0, 1, 0], [1]])
    assert batch.input_ids.tolist() == [[5, 0, 0], [7, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.labels.tolist() == [[IGNORED, 0, IGNORED], [7, IGNORED, IGNORED]]


def test_uniform_logits_cost_log_vocabulary_for_each_supervised_token():
    labels = torch.tensor([[IGNORED, 3, 1], [IGNORED, IGNORED, 2]])
    assert summed_loss(torch.zeros(2, 3, 8), labels).item() == pytest.approx(3 * math.log(8))
    assert n_supervised(labels) == 3


def test_a_token_is_predicted_from_the_one_before():
    logits = torch.full((1, 3, 4), -20.0)
    logits[0, 0, 2] = logits[0, 1, 1] = 20.0
    assert summed_loss(logits, torch.tensor([[0, 2, 1]])).item() == pytest.approx(0, abs=1e-6)


def test_the_first_position_has_no_prediction_and_is_not_counted():
    assert n_supervised(torch.tensor([[3, IGNORED]])) == 0


def test_loss_over_micro_batches_divided_once_is_the_loss_of_the_whole_batch():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 5, 7), torch.randint(0, 7, (4, 5))
    labels[0, :4] = IGNORED
    whole = summed_loss(logits, labels) / n_supervised(labels)
    parts = (summed_loss(logits[:1], labels[:1]) + summed_loss(logits[1:], labels[1:])) / n_supervised(labels)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)
